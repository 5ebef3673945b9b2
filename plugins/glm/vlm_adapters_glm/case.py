"""The cases of GLM-V for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

import math
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_glm.tiny import CELL, MAX_CELLS, MIN_CELLS, glm4v, glm4v_moe, glm46v


def glm_grids(
    size: tuple[int, int], *, min_pixels: int = 112 * 112, max_pixels: int = 15000 * 28 * 28, cell: int = CELL
) -> list[ExpectedGrid]:
    """The published smart resize, which counts an image as two frames.

    A side below a cell is first enlarged to one, and the other with it. Then sides go to the nearest multiples of a
    cell; where the two frames' pixels leave the limits, both sides are scaled by one factor and rounded towards the
    inside of the limit.
    """
    frames = 2
    enlarged = max(1, cell / min(size))
    height, width = (math.floor(side * enlarged + 1e-9) for side in size)
    rows, columns = round(height / cell), round(width / cell)
    if frames * rows * columns * cell**2 > max_pixels:
        shrink = math.sqrt(frames * height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif frames * rows * columns * cell**2 < min_pixels:
        grow = math.sqrt(min_pixels / (frames * height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    return [ExpectedGrid((rows, columns), (0, 0, size[1], size[0]))]


_GRIDS = partial(glm_grids, min_pixels=2 * MIN_CELLS * CELL**2, max_pixels=2 * MAX_CELLS * CELL**2)
GLM4V = AdapterCase("glm4v", load=glm4v, expected_grids=_GRIDS)
GLM4V_MOE = AdapterCase("glm4v_moe", load=glm4v_moe, expected_grids=_GRIDS)
GLM46V = AdapterCase("glm46v", load=glm46v, expected_grids=_GRIDS)
CASES = (GLM4V, GLM4V_MOE, GLM46V)
