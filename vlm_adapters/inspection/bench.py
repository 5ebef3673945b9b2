"""The cost of attention rows, against a plain forward pass and transformers' `output_attentions`.

All variants are measured in one run on one language model with random weights, so only the ratios matter.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, Qwen2Config

from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.row_blocks import RowPlan


@dataclass(frozen=True)
class BenchSettings:
    """Sizes of the model and of the request.

    Attributes:
        layers: Number of layers of the language model.
        heads: Number of query heads; a seventh of them are key heads, as in Qwen2.5-VL-7B.
        head_size: Width of a head.
        length: Number of tokens in the sequence.
        rows: Number of attention rows to record.
        columns: Number of image tokens in the sequence.
        repeats: Number of timed passes of each variant, taken in turn.
        eager: Whether to measure `output_attentions` as well, which needs `layers x heads x length^2` numbers.
    """

    layers: int = 4
    heads: int = 28
    head_size: int = 64
    length: int = 2048
    rows: int = 16
    columns: int = 1024
    repeats: int = 5
    eager: bool = True


@dataclass(frozen=True)
class BenchRow:
    """The cost of one variant of the pass.

    Attributes:
        variant: `"plain"` (sdpa), `"rows"` (sdpa with rows beside it), `"states"` (also hidden states of these
            tokens after every layer), `"eager"` (`output_attentions=True`).
        seconds: Median over the repeats.
        time_ratio: Median over the repeats of seconds over the plain pass's in the same turn.
        peak_bytes: Peak memory of a process that runs one pass, less that of one that runs a plain pass.
    """

    variant: str
    seconds: float
    time_ratio: float
    peak_bytes: int


def run_bench(settings: BenchSettings) -> list[BenchRow]:
    """Measure all variants on the CPU: time in this process, peak memory in a new process each."""
    variants = ("plain", "rows", "states", "eager") if settings.eager else ("plain", "rows", "states")
    # With this, glibc returns freed memory at once; otherwise peaks vary by a tenth between runs.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "131072")
    # Before this process loads a model: on Linux the peak of a child starts at the size of its parent.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {variant: pool.apply(process_peak_bytes, (variant, settings)) for variant in variants}
    passes = {variant: _pass(variant, settings) for variant in variants}
    seconds: dict[str, list[float]] = {variant: [] for variant in passes}
    for turn in range(settings.repeats + 1):
        for variant, run in passes.items():
            start = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[variant].append(time.perf_counter() - start)
    return [
        BenchRow(
            variant=variant,
            seconds=statistics.median(taken),
            time_ratio=statistics.median(a / b for a, b in zip(taken, seconds["plain"], strict=True)),
            peak_bytes=peaks[variant] - peaks["plain"],
        )
        for variant, taken in seconds.items()
    ]


def process_peak_bytes(variant: str, settings: BenchSettings) -> int:
    """Peak resident memory of this process after one pass; call it in a new process."""
    _pass(variant, settings)()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _pass(variant: str, settings: BenchSettings) -> Callable[[], None]:
    width = settings.heads * settings.head_size
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=max(1, settings.heads // 7),
        max_position_embeddings=settings.length,
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config, attn_implementation="eager" if variant == "eager" else "sdpa").eval()
    ids = torch.randint(1000, (1, settings.length))
    plan = RowPlan(
        rows=torch.arange(settings.length - settings.rows, settings.length),
        groups=torch.arange(settings.rows) // 4,
        columns=torch.arange(settings.columns),
    )

    def run() -> None:
        with torch.no_grad():
            if variant in ("rows", "states"):
                all_layers = range(settings.layers)
                with (
                    capture_rows(model, [plan], all_layers) as recorder,
                    capture_hidden_states(model, all_layers if variant == "states" else (), [plan.rows], ids.device),
                ):
                    model(ids, use_cache=False)
                maps: list[Tensor] = [of_layer[0] for of_layer in recorder.maps.values()]
            else:
                output = model(ids, use_cache=False, output_attentions=variant == "eager")
                # The part that a user would need; the S x S matrices were made nevertheless.
                maps = [layer[0, :, plan.rows][..., plan.columns] for layer in output.attentions or ()]
            del maps

    return run
