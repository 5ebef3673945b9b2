"""The cases of GLM-V for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid, LoadAdapter
from vlm_adapters_glm.tiny import CELL, MAX_CELLS, MIN_CELLS, glm4v, glm4v_moe, glm46v


def glm_grids(
    size: tuple[int, int],
    frames: int = 2,
    *,
    min_pixels: int = 112 * 112,
    max_pixels: int = 15000 * 28 * 28,
    cell: int = CELL,
) -> list[ExpectedGrid]:
    """The published smart resize, which counts an image as two frames.

    A side below a cell is first enlarged to one, and the other with it. Then sides go to the nearest multiples of a
    cell; where the frames' pixels leave the limits, both sides are scaled by one factor and rounded towards the
    inside of the limit.
    """
    even = 2 * round(frames / 2)
    enlarged = max(1, cell / min(size))
    height, width = (math.floor(side * enlarged + 1e-9) for side in size)
    rows, columns = round(height / cell), round(width / cell)
    if even * rows * columns * cell**2 > max_pixels:
        shrink = math.sqrt(frames * height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif even * rows * columns * cell**2 < min_pixels:
        grow = math.sqrt(min_pixels / (frames * height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    return [ExpectedGrid((rows, columns), (0, 0, size[1], size[0]))]


def glm_video_grids(
    size: tuple[int, int], frames: int, *, min_pixels: int, max_pixels: int, cell: int = CELL
) -> list[ExpectedGrid]:
    """Frames go two and two, an odd last one is repeated; the limits hold for all frames together."""
    (grid,) = glm_grids(size, frames, min_pixels=min_pixels, max_pixels=max_pixels, cell=cell)
    return [replace(grid, frames=(first, min(first + 2, frames))) for first in range(0, frames, 2)]


_MIN_PIXELS, _MAX_PIXELS = 2 * MIN_CELLS * CELL**2, 2 * MAX_CELLS * CELL**2


def _case(name: str, load: LoadAdapter) -> AdapterCase:
    """The case of a family, with the limits of the tiny models."""
    return AdapterCase(
        name,
        load=load,
        expected_grids=partial(glm_grids, min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS),
        expected_video=partial(glm_video_grids, min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS),
        # `get_placeholder_mask` takes every `<|image|>` for an image, and videos consist of them, too: a forward with
        # `pixel_values` and `pixel_values_videos` raises "Image features and image tokens do not match".
        video_alone="transformers cannot run GLM-V over images and videos at once",
    )


GLM4V = _case("glm4v", glm4v)
GLM4V_MOE = _case("glm4v_moe", glm4v_moe)
GLM46V = _case("glm46v", glm46v)
CASES = (GLM4V, GLM4V_MOE, GLM46V)
