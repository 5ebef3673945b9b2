"""The cases of MiniCPM-V for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

import math

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_minicpm.tiny import PATCH, SIDE, SLICES, minicpmv4_6, minicpmv4_7


def minicpm_grids(
    size: tuple[int, int], *, side: int = SIDE, cell: int = 4 * PATCH, slices: int = SLICES
) -> list[ExpectedGrid]:
    """The whole image, and slices if it has more pixels than a square of `side`.

    There are as many slices as such squares have its pixels, or one fewer or more, in the rows and columns that are
    nearest to its aspect. The whole image is enlarged only where it stands alone, and each slice always, to the pixels
    of the square at its own aspect; all sides are rounded to whole cells.
    """
    height, width = size
    box = (0.0, 0.0, float(width), float(height))
    squares = min(math.ceil(height * width / side**2), slices)
    if squares <= 1:
        return [ExpectedGrid(_cells(size, side, cell, enlarged=True), box)]
    numbers = [number for number in (squares - 1, squares, squares + 1) if 1 < number <= slices]
    forms = [(rows, number // rows) for number in numbers for rows in range(1, number + 1) if number % rows == 0]
    rows, columns = min(forms, key=lambda form: round(abs(math.log(width * form[0] / (height * form[1]))), 9))
    part = _whole(height, rows) / rows, _whole(width, columns) / columns
    of_slice = _cells(part, side, cell, enlarged=True)
    return [
        ExpectedGrid(_cells(size, side, cell, enlarged=False), box, name="overview"),
        ExpectedGrid((rows * of_slice[0], columns * of_slice[1]), box),
    ]


def _cells(size: tuple[float, float], side: int, cell: int, *, enlarged: bool) -> tuple[int, int]:
    height, width = size
    if enlarged or height * width > side**2:
        aspect = width / height
        height = int(side / math.sqrt(aspect))
        width = int(height * aspect)
    return _whole(height, cell) // cell, _whole(width, cell) // cell


def _whole(length: float, divisor: int) -> int:
    return max(round(length / divisor) * divisor, divisor)


MINICPM_4_6 = AdapterCase("minicpmv4_6", load=minicpmv4_6, expected_grids=minicpm_grids)
MINICPM_4_7 = AdapterCase("minicpmv4_7", load=minicpmv4_7, expected_grids=minicpm_grids)
