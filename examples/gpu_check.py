"""Run the whole chain on a GPU against the CPU in float32, and print how far they are apart.

    python examples/gpu_check.py [--device cuda] [--sam FILE]

For every embedded backbone, on held-out scenes: attention maps, hidden states, logits of the U-Net and masks, in
float32 and in bfloat16; with `--sam`, masks refined by Segment Anything. The exit code is 1 if a difference is beyond
its tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vlm_adapters import GridRequest, Grids, GroundedVLM, Grounding, load_adapter
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation.metrics import mask_iou

SCENES = 8
REQUEST = GridRequest(hidden_layers=[-1])
TOLERANCES = {
    torch.float32: {"attention": 1e-4, "hidden states": 1e-3, "logits": 1e-2, "masks": 0.01},
    torch.bfloat16: {"attention": 0.1, "hidden states": 0.1, "logits": 0.1, "masks": 0.1},
}
"""Largest difference of float32 attention; else differences relative to the mean size, and 1 - mean IoU of masks."""


@dataclass(frozen=True)
class Row:
    """One comparison with the CPU in float32."""

    model: str
    what: str
    difference: float
    tolerance: float


def compare(model: str, device: str, dtype: torch.dtype, sam: str | None) -> list[Row]:
    """Compare everything of one backbone."""
    samples = list(Scenes(SCENES, seed=HELD_OUT_SEED))
    exact = _run(GroundedVLM.from_pretrained(model, device="cpu", dtype="float32", sam=sam), samples)
    adapter = load_adapter(model, device=device, dtype=dtype)
    found = _run(GroundedVLM.from_pretrained(model, adapter=adapter, sam=sam), samples)
    tolerances, name = TOLERANCES[dtype], f"{model}, {str(dtype).removeprefix('torch.')}"
    attention = _relative if dtype is torch.bfloat16 else _largest
    measures = {"attention": attention, "hidden states": _relative, "logits": _relative, "masks": _unlike}
    return [
        Row(name, what, max(measure(a, b) for a, b in zip(found[what], exact[what], strict=True)), tolerances[what])
        for what, measure in measures.items()
    ]


def _run(vlm: GroundedVLM, samples: Sequence[Sample]) -> dict[str, list[Tensor]]:
    prompts = [sample.prompt for sample in samples]
    extracted: Sequence[Sequence[Grids]] = vlm.adapter.extract(vlm.adapter.preprocess(prompts), REQUEST)
    with torch.no_grad():
        logits = [own.coarse.float().cpu() for own in vlm.mask_logits(prompts)]
    groundings: list[Grounding] = vlm.ground_all(prompts)
    masks = [torch.from_numpy(np.stack([phrase.mask for phrase in of.phrases])) for of in groundings]
    grids = [grids for of_prompt in extracted for grids in of_prompt]
    return {
        "attention": [of.attention.float().cpu() for of in grids],
        "hidden states": [of.hidden.float().cpu() for of in grids],
        "logits": logits,
        "masks": masks,
    }


def _largest(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max())


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().mean() / exact.abs().mean())


def _unlike(found: Tensor, exact: Tensor) -> float:
    return 1 - float(np.mean([mask_iou(a, b) for a, b in zip(found.numpy(), exact.numpy(), strict=True)]))


def main() -> None:
    """Read the command line, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sam", help="checkpoint file of Segment Anything")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: there is no CUDA device here. Run this where there is one, or give --device cpu.")
    place = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    table = Table(title=f"{place} against the CPU in float32, torch {torch.__version__}, {SCENES} scenes")
    for heading in ("model", "what", "difference", "tolerance", ""):
        table.add_column(heading)
    failed = False
    for model in embedded_checkpoints():
        for dtype in TOLERANCES:
            for row in compare(model, arguments.device, dtype, arguments.sam):
                good = row.difference <= row.tolerance
                failed |= not good
                table.add_row(
                    row.model, row.what, f"{row.difference:.2e}", f"{row.tolerance:.0e}", "ok" if good else "NO"
                )
    Console().print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
