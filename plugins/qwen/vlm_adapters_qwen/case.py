"""The cases of Qwen-VL for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

import math
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid, LoadAdapter
from vlm_adapters_qwen.tiny import MAX_CELLS, MIN_CELLS, qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_vl, qwen3_vl_moe


def qwen_grids(
    size: tuple[int, int], *, min_pixels: int = 4 * 28 * 28, max_pixels: int = 16384 * 28 * 28, cell: int = 28
) -> list[ExpectedGrid]:
    """The published smart resize: sides to the nearest multiples of a cell, the area within its limits.

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


def _case(name: str, load: LoadAdapter, cell: int) -> AdapterCase:
    """The case of a family, with the limits of the tiny models."""
    smallest, largest = MIN_CELLS * cell**2, MAX_CELLS * cell**2
    return AdapterCase(
        name,
        load=load,
        expected_grids=partial(qwen_grids, min_pixels=smallest, max_pixels=largest, cell=cell),
        pixels_differ="`qwen_vl_utils` resizes with Pillow, as the family's authors do, the stock processor with torch",
    )


QWEN2_VL = _case("qwen2_vl", qwen2_vl, 28)
QWEN2_5_VL = _case("qwen2_5_vl", qwen2_5_vl, 28)
QWEN3_VL = _case("qwen3_vl", qwen3_vl, 32)
QWEN3_VL_MOE = _case("qwen3_vl_moe", qwen3_vl_moe, 32)
QWEN3_5 = _case("qwen3_5", qwen3_5, 32)
CASES = (QWEN2_VL, QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5)
