"""The cases of Qwen-VL for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

import math
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_qwen.tiny import (
    MAX_CELLS,
    MIN_CELLS,
    qwen2_5_omni_thinker,
    qwen2_5_vl,
    qwen2_vl,
    qwen3_5,
    qwen3_5_moe,
    qwen3_omni_moe_thinker,
    qwen3_vl,
    qwen3_vl_moe,
)


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


def _limited(cell: int) -> partial[list[ExpectedGrid]]:
    """The rule of the grid with the limits of the tiny models."""
    return partial(qwen_grids, min_pixels=MIN_CELLS * cell**2, max_pixels=MAX_CELLS * cell**2, cell=cell)


QWEN2_VL = AdapterCase("qwen2_vl", load=qwen2_vl, expected_grids=_limited(28))
QWEN2_5_VL = AdapterCase("qwen2_5_vl", load=qwen2_5_vl, expected_grids=_limited(28))
QWEN3_VL = AdapterCase("qwen3_vl", load=qwen3_vl, expected_grids=_limited(32))
QWEN3_VL_MOE = AdapterCase("qwen3_vl_moe", load=qwen3_vl_moe, expected_grids=_limited(32))
QWEN3_5 = AdapterCase("qwen3_5", load=qwen3_5, expected_grids=_limited(32))
QWEN3_5_MOE = AdapterCase("qwen3_5_moe", load=qwen3_5_moe, expected_grids=_limited(32))
QWEN2_5_OMNI_THINKER = AdapterCase("qwen2_5_omni_thinker", load=qwen2_5_omni_thinker, expected_grids=_limited(28))
QWEN3_OMNI_MOE_THINKER = AdapterCase("qwen3_omni_moe_thinker", load=qwen3_omni_moe_thinker, expected_grids=_limited(32))
CASES = (
    QWEN2_VL,
    QWEN2_5_VL,
    QWEN3_VL,
    QWEN3_VL_MOE,
    QWEN3_5,
    QWEN3_5_MOE,
    QWEN2_5_OMNI_THINKER,
    QWEN3_OMNI_MOE_THINKER,
)
