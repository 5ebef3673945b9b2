"""Compare the memory that `adapters info --device-memory` predicts with what full-size models of random weights take.

    python examples/lab/measure_plan.py [--model NAME ...] [--image WIDTHxHEIGHT ...] [--phrases N ...] \
        [--dtype bfloat16] [--sam vit_b] [--device cuda] [--report examples/lab/results/plan.json]

Every model runs in a process of its own: what its weights take, and what grounding takes beyond them, after a first one
that loads what stays. On a CPU that is the peak of resident memory, on a GPU the peak of torch's allocator. The
allowance for the driver and the allocator is left out of the prediction. Without options it takes half an hour on two
cores, and 10 GiB.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# With this, glibc returns freed memory at once; otherwise peaks vary by a tenth between runs.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "131072")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import write_report
from segment_anything import sam_model_registry
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from vlm_adapters import GridRequest, GroundedVLM, MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import UntrainedRefiner
from vlm_adapters.hf import TransformersBackbone
from vlm_adapters.inspection.grounding_memory import Scene, grounding_memory, on_meta
from vlm_adapters.inspection.weights import weight_bytes
from vlm_adapters.registry.loading import load_published

SMALL, MIDDLE, LARGE = "448x336", "1024x768", "2048x1536"
CASES = (
    ("deepseek-community/deepseek-vl-1.3b-chat", "float32", "vit_b", (MIDDLE,)),
    ("Qwen/Qwen3-VL-2B-Instruct", "bfloat16", None, (SMALL, MIDDLE)),
    ("Qwen/Qwen2-VL-2B-Instruct", "bfloat16", None, (SMALL, MIDDLE, LARGE)),
    ("Qwen/Qwen2.5-VL-3B-Instruct", "bfloat16", None, (MIDDLE,)),
)
PHRASES = (1, 50)
GIBIBYTE = 2**30


def decoder_for(adapter: TransformersBackbone, sam: str | None) -> MaskDecoder:
    """A decoder of the usual size, with a Segment Anything model if one is named."""
    decoder = MaskDecoder.untrained(adapter.info)
    if sam is None:
        return decoder.eval()
    refiner = UntrainedRefiner(SegmentAnything(sam_model_registry[sam]()))
    return MaskDecoder(decoder.unet, decoder.request, refiner).eval()


def predictions(scenes: Sequence[Scene], model: str, dtype: torch.dtype, sam: str | None) -> Iterator[dict[str, Any]]:
    """Predicted bytes of every scene."""
    twin = on_meta(load_published(model), dtype)
    with torch.device("meta"):
        decoder = decoder_for(twin, sam)
    weights = weight_bytes(twin.model, dtype) + weight_bytes(decoder, torch.float32)
    for scene in scenes:
        memory = grounding_memory(twin, scene, GridRequest(), decoder)
        yield {"tokens": memory.tokens, "weights": weights, "beyond": memory.peak}


def scenes_of(images: Sequence[str], phrases: Sequence[int]) -> list[Scene]:
    """Every image with every number of phrases."""
    sizes = [tuple(map(int, image.split("x"))) for image in images]
    return [Scene((height, width), count) for width, height in sizes for count in phrases]


def measure(chosen: argparse.Namespace, model: str, dtype: torch.dtype, sam: str | None) -> None:
    """In a process of its own: print the measured bytes of every scene as lines of JSON."""
    adapter = load_published(model)
    adapter.preprocess([Scene((64, 64), 1).prompt(adapter)])
    on_cpu = chosen.device == "cpu"
    before = held(on_cpu=True) if on_cpu else 0
    with no_init_weights(), torch.device(chosen.device):
        adapter.model = AutoModelForImageTextToText.from_config(
            adapter.model.config, dtype=dtype, attn_implementation="sdpa"
        )
    adapter.model.tie_weights()
    decoder = decoder_for(adapter, sam).to(chosen.device)
    fill(adapter.model)
    vlm = GroundedVLM(adapter, decoder).eval()
    gc.collect()
    weights = held(on_cpu=on_cpu) - before
    ground(vlm, Scene((336, 448), 1))
    for scene in scenes_of(chosen.image, chosen.phrases):
        forget_peak(on_cpu=on_cpu)
        loaded = held(on_cpu=on_cpu)
        ground(vlm, scene)
        beyond = (peak_resident() if on_cpu else torch.cuda.max_memory_allocated()) - loaded
        print(json.dumps({"measured weights": weights, "measured beyond": beyond}), flush=True)


@torch.no_grad()
def ground(vlm: GroundedVLM, scene: Scene) -> None:
    """Compute the logits of a scene's phrases."""
    vlm.mask_logits([scene.prompt(vlm.adapter)])


def fill(model: nn.Module) -> None:
    """Give all weights small random values; the same block again and again, for speed."""
    block = torch.randn(2**20) * 0.02
    with torch.no_grad():
        for weight in model.parameters():
            flat = weight.view(-1)
            for part in flat.split(len(block)):
                part.copy_(block[: len(part)])


def held(*, on_cpu: bool) -> int:
    """Bytes that are held now: resident memory of this process, or tensors on the GPU."""
    return _status("VmRSS") if on_cpu else torch.cuda.memory_allocated()


def peak_resident() -> int:
    """The most resident bytes since `forget_peak`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def forget_peak(*, on_cpu: bool) -> None:
    """Let the peak begin with what is held now."""
    gc.collect()
    if on_cpu:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    else:
        torch.cuda.reset_peak_memory_stats()


def compare(
    chosen: argparse.Namespace, model: str, dtype: str, sam: str | None, images: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Predict and measure every scene of a case."""
    scenes = scenes_of(images, chosen.phrases)
    expected = list(predictions(scenes, model, getattr(torch, dtype), sam))
    options = ["--image", *images, "--phrases", *map(str, chosen.phrases), "--device", chosen.device]
    child = [sys.executable, __file__, "--child", "--model", model, "--dtype", dtype, *options]
    child += ["--sam", sam] if sam else []
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - of our own options
        for scene, predicted in zip(scenes, expected, strict=True):
            yield row_of(model, dtype, sam, scene, predicted, json.loads(process.stdout.readline()))


def row_of(
    model: str, dtype: str, sam: str | None, scene: Scene, predicted: dict[str, Any], found: dict[str, Any]
) -> dict[str, Any]:
    """A row of the table; sizes in GiB."""
    height, width = scene.image
    total, taken = predicted["weights"] + predicted["beyond"], found["measured weights"] + found["measured beyond"]
    return {
        "model": model,
        "dtype": dtype,
        "sam": sam,
        "image": f"{width}x{height}",
        "phrases": scene.phrases,
        "tokens": predicted["tokens"],
        "predicted weights": round(predicted["weights"] / GIBIBYTE, 3),
        "measured weights": round(found["measured weights"] / GIBIBYTE, 3),
        "predicted beyond": round(predicted["beyond"] / GIBIBYTE, 3),
        "measured beyond": round(found["measured beyond"] / GIBIBYTE, 3),
        "predicted / measured beyond": round(predicted["beyond"] / found["measured beyond"], 3),
        "predicted": round(total / GIBIBYTE, 3),
        "measured": round(taken / GIBIBYTE, 3),
        "predicted / measured": round(total / taken, 3),
    }


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    return "  ".join(f"{value:>9}" if isinstance(value, int | float) else str(value) for value in row.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sam", choices=("vit_b", "vit_l", "vit_h"))
    parser.add_argument("--image", nargs="+")
    parser.add_argument("--phrases", nargs="+", type=int, default=PHRASES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        measure(chosen, chosen.model[0], getattr(torch, chosen.dtype), chosen.sam)
        return
    given = [(model, chosen.dtype, chosen.sam, (SMALL, MIDDLE, LARGE)) for model in chosen.model or ()]
    rows = []
    for model, dtype, sam, images in given or CASES:
        for row in compare(chosen, model, dtype, sam, chosen.image or images):
            rows.append(row)
            print(line(row), flush=True)
            if chosen.report:
                card = {"machine": f"one {torch.cuda.get_device_name()}"} if chosen.device == "cuda" else {}
                write_report(chosen.report, {**card, "device": chosen.device, "rows": rows})


if __name__ == "__main__":
    main()
