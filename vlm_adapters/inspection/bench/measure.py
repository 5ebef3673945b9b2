"""Timing of variants in turn, so that whatever slows a machine for a while slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import comb

import numpy as np
import torch

CONFIDENCE = 0.95
"""How often the interval of a median is to hold it; fewer than six turns reach less."""
FEWEST_TURNS = 3
"""No comparison is ended by its time before this many turns."""


@dataclass(frozen=True)
class Variant:
    """One way to do something.

    Attributes:
        run: Does it.
        within: Makes the block in which it is done; entering and leaving it is not timed.
    """

    run: Callable[[], object]
    within: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Measurement:
    """The cost of a variant.

    Attributes:
        variant: Its name.
        seconds: Median over the turns; None if it was not measured.
        ratio: Median over the turns of seconds over the first variant's in the same turn.
        interval: Interval around `ratio`, by order statistics.
        confidence: How often such an interval holds the true median.
        turns: How many times it was timed.
        peak_bytes: Peak memory beyond that of the loaded model; None if it was not measured.
        note: Why something was not measured.
    """

    variant: str
    seconds: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    turns: int = 0
    peak_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """What was measured together.

    Attributes:
        part: Part of the bench.
        title: What was measured, in words.
        rows: The measurements; ratios are to the first.
        facts: Further numbers, by name.
        tokens: Length of the sequence; None where there are several.
    """

    part: str
    title: str
    rows: tuple[Measurement, ...] = ()
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    tokens: int | None = None


def take_turns(
    variants: Mapping[str, Variant], *, device: str, repeats: int, seconds: float = float("inf")
) -> list[Measurement]:
    """Time variants in turn, forwards and backwards, after a turn that warms up.

    Args:
        variants: The variants by name; the first is what the others are compared with.
        device: Device that they run on.
        repeats: Number of timed turns.
        seconds: Time after which no further turn begins, once there are at least three.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    failed: dict[str, str] = {}
    names = list(variants)
    start = time.perf_counter()
    for turn in range(repeats + 1):
        for name in names if turn % 2 else reversed(names):
            if name in failed:
                continue
            try:
                once = seconds_of(variants[name], device)
            except torch.OutOfMemoryError:
                failed[name] = "out of memory"
                continue
            if turn:
                taken[name].append(once)
        if turn >= FEWEST_TURNS and time.perf_counter() - start > seconds:
            break
    first = taken[names[0]]
    return [
        Measurement(name, note=failed[name]) if name in failed else measurement(name, taken[name], first)
        for name in variants
    ]


def measurement(name: str, taken: Sequence[float], first: Sequence[float]) -> Measurement:
    """The cost of a variant from its seconds in every turn, and from those of the variant it is compared with."""
    if not first:
        return Measurement(name, float(np.median(taken)), turns=len(taken))
    ratios = [a / b for a, b in zip(taken, first, strict=True)]
    low, high, confidence = median_interval(ratios)
    return Measurement(name, float(np.median(taken)), float(np.median(ratios)), (low, high), confidence, len(taken))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest interval between order statistics that holds the median with 95 % confidence, and its confidence.

    Fewer than six values do not suffice; then it is from the least to the greatest, with a lower confidence.
    """
    ordered, count = sorted(values), len(values)
    outside = 2 / 2**count
    cut = 0  # how many values are left out at each end
    while cut + 1 < (count + 1) // 2:
        wider = outside + 2 * comb(count, cut + 1) / 2**count
        if wider > 1 - CONFIDENCE:
            break
        cut, outside = cut + 1, wider
    return ordered[cut], ordered[count - 1 - cut], 1 - outside


def seconds_of(variant: Variant, device: str) -> float:
    """Time of one run."""
    with variant.within():
        synchronize(device)
        start = time.perf_counter()
        variant.run()
        synchronize(device)
        return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if is_gpu(device):
        torch.cuda.synchronize(device)


def is_gpu(device: str) -> bool:
    """Whether a device has memory and a queue of its own that can be measured."""
    return torch.device(device).type == "cuda"
