"""The cases of the Gemma family for the conformance suite, and the published rules of their grids."""

from __future__ import annotations

import math
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_gemma.tiny import CELLS, PATCH, SIDE, gemma3, gemma4, gemma4_unified, paligemma


def square_grids(size: tuple[int, int], *, cells: int = CELLS) -> list[ExpectedGrid]:
    """The whole image squashed to a square."""
    return [ExpectedGrid((cells, cells), (0, 0, size[1], size[0]))]


def budget_grids(size: tuple[int, int], *, cell: int = 12, most: int = 70) -> list[ExpectedGrid]:
    """The whole image in as many square cells as fit the budget at its own aspect, both sides rounded down.

    A side that is shorter than a cell becomes one cell, and then the other has as many cells as the image is long.
    """
    height, width = size
    scale = math.sqrt(most * cell**2 / (height * width))
    rows, columns = int(height * scale / cell), int(width * scale / cell)
    if rows == 0:
        rows, columns = 1, min(width // height, most)
    elif columns == 0:
        rows, columns = min(height // width, most), 1
    return [ExpectedGrid((rows, columns), (0, 0, width, height))]


GEMMA3 = AdapterCase("gemma3", load=gemma3, expected_grids=square_grids)
GEMMA4 = AdapterCase("gemma4", load=gemma4, expected_grids=budget_grids)
GEMMA4_UNIFIED = AdapterCase("gemma4_unified", load=gemma4_unified, expected_grids=budget_grids)
PALIGEMMA = AdapterCase("paligemma", load=paligemma, expected_grids=partial(square_grids, cells=SIDE // PATCH))
