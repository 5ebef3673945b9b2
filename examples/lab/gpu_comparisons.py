"""What `gpu_check.py` compares: kernels, the embedded chain, and memory, on a device against an independent number."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig, PreTrainedModel, Qwen2Config

from vlm_adapters import GridRequest, GroundedVLM, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import UntrainedRefiner
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.row_blocks import RowPlan

SCENES = 8
REQUEST = GridRequest(hidden_layers=[-1])
TOLERANCES = {
    torch.float32: {"attention": 1e-4, "hidden states": 1e-3, "logits": 1e-2, "masks": 0.01, "refined masks": 0.02},
    torch.bfloat16: {"attention": 0.1, "hidden states": 0.1, "logits": 0.1, "masks": 0.1, "refined masks": 0.2},
}
"""Largest difference of float32 attention; else differences relative to the mean size, and 1 - mean IoU of masks."""
KERNELS = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
LENGTH = 256
"""Tokens; torch 2.11 could not compile flex attention for 96 of them on an H200."""
MOST_ADDED = 0.02
"""Of the peak of a plain pass beyond the weights: what hidden states of phrases may add."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and its bar; `good` is None where it was not run."""

    part: str
    what: str
    found: str
    bar: str
    good: bool | None
    detail: str = ""


def kernels(device: str) -> Iterator[Finding]:
    """Rows beside every kernel that is here, in a padded batch, against the eager kernel's own weights."""
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :30] = 0
    inputs = {"input_ids": torch.randint(1, 50, mask.shape).to(device), "attention_mask": mask.to(device)}
    rows, columns = torch.tensor([50, LENGTH - 1]), torch.arange(30, LENGTH)
    plans = [RowPlan(rows, torch.tensor([0, 1]), columns) for _ in range(2)]
    for name in KERNELS:
        # Flash kernels know no float32; below it the eager oracle rounds its own scores, so only a rough bar is fair.
        dtype, bar = (torch.bfloat16, 0.05) if "flash" in name else (torch.float32, 1e-5 if device == "cpu" else 1e-4)
        what = f"rows beside {name}, {str(dtype).removeprefix('torch.')}, padded batch"
        try:
            model = _llama(name, device, dtype)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                truth = _llama("eager", device, dtype)(**inputs, output_attentions=True).attentions
                model(**inputs, use_cache=False)  # a kernel that fails by itself is not the library's to judge
        except Exception as error:  # noqa: BLE001 - compilers raise what they like
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            yield Finding("kernels", what, "does not run here", "-", good=None, detail=reason)
            continue
        with torch.no_grad(), capture_rows(model, plans, range(2), "none") as recorder:
            model(**inputs, use_cache=False)
        worst = max(
            _largest(
                recorder.maps[layer][b].float().cpu(), weights[b][:, rows][..., columns].transpose(0, 1).float().cpu()
            )
            for layer, weights in enumerate(truth)
            for b in (0, 1)
        )
        yield Finding("kernels", what, f"{worst:.1e}", f"<= {bar:.0e}", good=worst <= bar)


def _llama(kernel: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    sizes = {"vocab_size": 50, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModel.from_config(config, attn_implementation=kernel, dtype=dtype)
    return nn.Module.to(model, device).eval()


def chain(device: str, sam: str | None) -> Iterator[Finding]:
    """Every embedded backbone with its decoder and a refiner, on the device against the CPU in float32."""
    samples = list(Scenes(SCENES, seed=HELD_OUT_SEED))
    for model in embedded_checkpoints():
        exact = _run(GroundedVLM.from_pretrained(model, device="cpu", dtype="float32"), samples, sam)
        for dtype, tolerances in TOLERANCES.items():
            adapter = load_adapter(model, device=device, dtype=dtype)
            found = _run(GroundedVLM.from_pretrained(model, adapter=adapter), samples, sam)
            attention = _relative if dtype is torch.bfloat16 else _largest
            measures = {name: _unlike if "masks" in name else _relative for name in tolerances} | {
                "attention": attention
            }
            for name, measure in measures.items():
                worst = max(measure(a, b) for a, b in zip(found[name], exact[name], strict=True))
                what = f"{model}, {name}, {str(dtype).removeprefix('torch.')}"
                bar = tolerances[name]
                yield Finding("chain", what, f"{worst:.1e}", f"<= {bar:.0e}", good=worst <= bar)


def _run(vlm: GroundedVLM, samples: Sequence[Sample], sam: str | None) -> dict[str, list[Tensor]]:
    prompts = [sample.prompt for sample in samples]
    extracted = vlm.adapter.extract(vlm.adapter.preprocess(prompts), REQUEST)
    with torch.no_grad():
        logits = [found.coarse.float().cpu() for found in vlm.mask_logits(prompts)]
    grids = [grids for of_prompt in extracted for grids in of_prompt]
    masks = _masks(vlm, samples)
    vlm.decoder.refiner = UntrainedRefiner(_segment_anything(sam).to(vlm.decoder.device))
    return {
        "attention": [of.attention.float().cpu() for of in grids],
        "hidden states": [of.hidden.float().cpu() for of in grids],
        "logits": logits,
        "masks": masks,
        "refined masks": _masks(vlm, samples),
    }


def _masks(vlm: GroundedVLM, samples: Sequence[Sample]) -> list[Tensor]:
    groundings = vlm.ground_all([sample.prompt for sample in samples])
    return [torch.from_numpy(np.stack([phrase.mask for phrase in of.phrases])) for of in groundings]


def _segment_anything(sam: str | None) -> SegmentAnything:
    """The model of a checkpoint, or a small one with the same random weights every time."""
    if sam:
        from vlm_adapters.decoder.sam.checkpoint import load_sam  # noqa: PLC0415 - needed for a file alone

        return load_sam(sam)
    torch.manual_seed(0)
    encoder = ImageEncoderViT(img_size=96, patch_size=16, embed_dim=16, depth=1, num_heads=2, out_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=16, num_heads=2, mlp_dim=32)
    decoder = MaskDecoder(transformer_dim=16, transformer=transformer, iou_head_hidden_dim=16)
    return SegmentAnything(Sam(encoder, PromptEncoder(16, (6, 6), (96, 96), 16), decoder)).eval()


def _largest(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max())


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().mean() / exact.abs().mean())


def _unlike(found: Tensor, exact: Tensor) -> float:
    return 1 - float(np.mean([mask_iou(a, b) for a, b in zip(found.numpy(), exact.numpy(), strict=True)]))


def memory(device: str) -> Iterator[Finding]:
    """What rows, and hidden states of all layers, add to the peak of a pass of 28 layers over 4,000 tokens."""
    bar = f"<= {MOST_ADDED:.0%} of the pass"
    if not device.startswith("cuda"):
        yield Finding("memory", "28 layers, 4,000 tokens", "needs a GPU", bar, good=None)
        return
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 100}
    config = Qwen2Config(**sizes, num_attention_heads=28, num_key_value_heads=4)
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    ids = torch.randint(100, (1, 4000), device=device)
    plan = RowPlan(torch.arange(3970, 4000), torch.arange(30) // 8, torch.arange(3000))

    def captured(row_layers: Sequence[int], state_layers: Sequence[int]) -> object:
        with (
            capture_rows(model, [plan], row_layers) as recorder,
            capture_hidden_states(model, state_layers, [plan.rows], ids.device) as states,
        ):
            model(ids, use_cache=False)
        return recorder, states

    every = range(config.num_hidden_layers)
    plain = _peak(lambda: model(ids, use_cache=False))
    added = {
        "hidden states of 30 tokens after all layers": _peak(lambda: captured((), every)) - plain,
        "rows of 30 tokens in all layers, their maps with them": _peak(lambda: captured(every, ())) - plain,
    }
    for (what, count), own in zip(added.items(), (bar, "-"), strict=True):
        found = f"{count / 2**20:+.1f} MiB, {count / plain:+.2%}"
        good = count <= MOST_ADDED * plain if own == bar else None  # the maps are what is asked for, so no bar
        yield Finding("memory", f"{what} ({plain / 2**20:.0f} MiB plain)", found, own, good=good)


def _peak(run: Callable[[], object]) -> int:
    """Most bytes that torch's allocator held during a second run, beyond what was there before."""
    with torch.no_grad():
        run()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
