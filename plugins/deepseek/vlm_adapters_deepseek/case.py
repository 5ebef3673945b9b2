"""The cases of DeepSeek-VL for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_deepseek.tiny import CELLS, FINE_SIDE, SIDE, deepseek_vl, deepseek_vl_hybrid


def square_grid(size: tuple[int, int], *, side: int, cells: int = CELLS, shortest: int = 14) -> list[ExpectedGrid]:
    """The rule of the grid: the image centred on a square as long as its long side.

    Args:
        size: `(H, W)` of the image.
        side: Pixels of the square after the resize.
        cells: Number of cells along each side.
        shortest: Smallest length of a resized side, in pixels.
    """
    new = [max(shortest, round(length * side / max(size))) for length in size]
    ends = []
    for length, pixels in zip(size, new, strict=True):
        before = (side - pixels) // 2
        ends.append((-before * length / pixels, (side - before) * length / pixels))
    (top, bottom), (left, right) = ends
    return [ExpectedGrid((cells, cells), (left, top, right, bottom))]


DEEPSEEK_VL = AdapterCase("deepseek_vl", load=deepseek_vl, expected_grids=partial(square_grid, side=SIDE))
DEEPSEEK_VL_HYBRID = AdapterCase(
    "deepseek_vl_hybrid", load=deepseek_vl_hybrid, expected_grids=partial(square_grid, side=FINE_SIDE)
)
