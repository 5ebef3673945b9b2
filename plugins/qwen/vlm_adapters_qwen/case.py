"""The cases of Qwen-VL for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid, LoadAdapter
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

VideoRule = Callable[..., list[ExpectedGrid]]


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


def qwen_video_grids(
    size: tuple[int, int], frames: int, *, min_pixels: int, max_pixels: int, cell: int
) -> list[ExpectedGrid]:
    """Qwen2-VL and Qwen2.5-VL: frames go two and two, each resized as an image is; an odd last frame is repeated."""
    (grid,) = qwen_grids(size, min_pixels=min_pixels, max_pixels=max_pixels, cell=cell)
    return [replace(grid, frames=(first, min(first + 2, frames))) for first in range(0, frames, 2)]


def qwen3_video_grids(
    size: tuple[int, int], frames: int, *, min_pixels: int, max_pixels: int, cell: int
) -> list[ExpectedGrid]:
    """Qwen3-VL and later: the limits hold for the pixels of all frames together.

    A side below a cell is first enlarged to one, and the other with it.
    """
    enlarged = max(1, cell / min(size))
    height, width = (math.floor(side * enlarged + 1e-9) for side in size)
    rows, columns, even = round(height / cell), round(width / cell), 2 * round(frames / 2)
    if even * rows * columns * cell**2 > max_pixels:
        shrink = math.sqrt(frames * height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif even * rows * columns * cell**2 < min_pixels:
        grow = math.sqrt(min_pixels / (frames * height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    box = (0, 0, size[1], size[0])
    return [ExpectedGrid((rows, columns), box, frames=(first, min(first + 2, frames))) for first in range(0, frames, 2)]


def _case(name: str, load: LoadAdapter, cell: int, videos: VideoRule | None = None) -> AdapterCase:
    """The case of a family, with the limits of the tiny models."""
    smallest, largest = MIN_CELLS * cell**2, MAX_CELLS * cell**2
    return AdapterCase(
        name,
        load=load,
        expected_grids=partial(qwen_grids, min_pixels=smallest, max_pixels=largest, cell=cell),
        expected_video=videos and partial(videos, min_pixels=smallest, max_pixels=largest, cell=cell),
        pixels_differ="`qwen_vl_utils` resizes with Pillow, as the family's authors do, the stock processor with torch",
    )


QWEN2_VL = _case("qwen2_vl", qwen2_vl, 28, qwen_video_grids)
QWEN2_5_VL = _case("qwen2_5_vl", qwen2_5_vl, 28, qwen_video_grids)
QWEN3_VL = _case("qwen3_vl", qwen3_vl, 32, qwen3_video_grids)
QWEN3_VL_MOE = _case("qwen3_vl_moe", qwen3_vl_moe, 32, qwen3_video_grids)
QWEN3_5 = _case("qwen3_5", qwen3_5, 32, qwen3_video_grids)
QWEN3_5_MOE = _case("qwen3_5_moe", qwen3_5_moe, 32, qwen3_video_grids)
QWEN2_5_OMNI_THINKER = _case("qwen2_5_omni_thinker", qwen2_5_omni_thinker, 28)
QWEN3_OMNI_MOE_THINKER = _case("qwen3_omni_moe_thinker", qwen3_omni_moe_thinker, 32)
QWEN2_5_OMNI, QWEN3_OMNI_MOE = QWEN2_5_OMNI_THINKER, QWEN3_OMNI_MOE_THINKER
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
