"""The case of Qwen2.5-VL for the conformance suite."""

from __future__ import annotations

import math

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_qwen.tiny import qwen2_5_vl


def qwen_grids(
    size: tuple[int, int], *, min_pixels: int = 4 * 28 * 28, max_pixels: int = 16384 * 28 * 28, cell: int = 28
) -> list[ExpectedGrid]:
    """The published smart resize: sides to the nearest multiples of a cell, the area kept within its limits.

    Beyond a limit both sides are scaled by one factor, then rounded towards the inside of the limit.
    """
    height, width = size
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    if rows * columns * cell**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in size)
    elif rows * columns * cell**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in size)
    return [ExpectedGrid((rows, columns), (0, 0, width, height))]


def tiny_grids(size: tuple[int, int]) -> list[ExpectedGrid]:
    """The rule with the limits of the tiny model."""
    return qwen_grids(size, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28)


QWEN2_5_VL = AdapterCase("qwen2_5_vl", load=qwen2_5_vl, expected_grids=tiny_grids)
