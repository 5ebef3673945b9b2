"""Time a vision tower of full width with its windows one by one and together, in turn.

    python examples/lab/measure_tower.py [--model Qwen/Qwen2.5-VL-7B-Instruct] [--depth N] [--image WIDTHxHEIGHT]
        [--dtype float32] [--turns 5] [--report FILE]

The tower of a published model with random weights, without its language model. `--depth 8` takes the first 8 of
Qwen2.5-VL's 32 layers: of each 8, one sees the whole image and 7 see windows.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import write_report
from torch import Tensor, nn

from vlm_adapters.hf import TransformersBackbone
from vlm_adapters.hf.windows import batched_windows
from vlm_adapters.inspection.bench.measure import Variant, take_turns
from vlm_adapters.inspection.grounding_memory import Scene
from vlm_adapters.registry.loading import load_published

ONE_BY_ONE, TOGETHER = "as transformers runs it", "windows together"


def tower_of(adapter: TransformersBackbone, depth: int | None, dtype: torch.dtype) -> nn.Module:
    """The vision tower of an adapter whose model is on the meta device, with random weights."""
    made: Any = adapter.model.base_model
    config = deepcopy(made.visual.config)
    config.depth = depth or config.depth
    torch.manual_seed(0)
    tower: nn.Module = type(made.visual)(config).eval().to(dtype)
    return tower


@contextmanager
def counted_calls(calls: list[int]) -> Iterator[None]:
    """Count the calls of torch's attention while the block runs."""
    kernel = torch.nn.functional.scaled_dot_product_attention

    def counting(*arguments: Any, **options: Any) -> Tensor:
        calls.append(1)
        return kernel(*arguments, **options)

    torch.nn.functional.scaled_dot_product_attention = counting
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = kernel


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen/Qwen2.5-VL-7B-Instruct", help="a published checkpoint")
    parser.add_argument("--depth", type=int, help="number of layers; all by default")
    parser.add_argument("--image", default="1024x768", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    adapter = load_published(arguments.model)
    width, height = map(int, arguments.image.split("x"))
    tensors = adapter.preprocess([Scene((height, width), 1).prompt(adapter)]).tensors
    dtype = getattr(torch, arguments.dtype)
    tower = tower_of(adapter, arguments.depth, dtype)
    pixels = torch.randn(tensors["pixel_values"].shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    run = torch.no_grad()(partial(tower, pixels, grid_thw=tensors["image_grid_thw"].cpu()))
    variants = {ONE_BY_ONE: Variant(run), TOGETHER: Variant(run, partial(batched_windows, tower))}
    calls = {}
    for name, variant in variants.items():
        found: list[int] = []
        with variant.within(), counted_calls(found):
            variant.run()
        calls[name] = len(found)
    rows = take_turns(variants, device="cpu", repeats=arguments.turns)
    for row in rows:
        low, high = row.interval or (0, 0)
        print(
            f"{row.variant:25} {row.seconds:8.2f} s  ratio {row.ratio:.3f} ({low:.3f} to {high:.3f}), "
            f"{calls[row.variant]} calls of the kernel"
        )
    if arguments.report:
        together = rows[1]
        report = {
            "model": arguments.model,
            "layers": int(tower.config.depth),
            "width": int(tower.config.hidden_size),
            "image": [height, width],
            "patches": len(pixels),
            "dtype": arguments.dtype,
            "threads": torch.get_num_threads(),
            "turns": arguments.turns,
            "seconds": {row.variant: round(row.seconds or 0, 3) for row in rows},
            "calls of the kernel": calls,
            "ratio": round(together.ratio or 0, 4),
            "interval": [round(bound, 4) for bound in together.interval or ()],
            "confidence": round(together.confidence or 0, 3),
        }
        write_report(arguments.report, report)


if __name__ == "__main__":
    main()
