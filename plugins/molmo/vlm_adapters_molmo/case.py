"""The case of Molmo 2 for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_molmo.tiny import CROPS, MARGIN, PATCH, SIDE, molmo2


def molmo2_grids(
    size: tuple[int, int], *, side: int = SIDE, patch: int = PATCH, margin: int = MARGIN, crops: int = CROPS
) -> list[ExpectedGrid]:
    """The whole image in one square, then in as many crops as it needs, cells of 2 x 2 patches.

    Crops overlap by a margin on each side, of which only the outermost is used. They are as many as enlarge the image
    least, or, where none of their numbers enlarges it, as many as shrink it least. The last cell of an odd number of
    patches covers one patch of the image.
    """
    window, border = side - 2 * margin * patch, 2 * margin * patch

    def enlarged(tiles: tuple[int, int]) -> float:
        return min(tile * window / (length - border) for tile, length in zip(tiles, size, strict=True))

    every = range(1, crops + 1)
    numbers = [tiles for tiles in product(every, every) if math.prod(tiles) <= crops]
    numbers.sort(key=lambda tiles: (math.prod(tiles), tiles[0]))
    enough = [tiles for tiles in numbers if enlarged(tiles) >= 1]
    rows, columns = min(enough, key=enlarged) if enough else max(numbers, key=enlarged)
    whole = (side // patch, side // patch)
    fine = ((rows * window + border) // patch, (columns * window + border) // patch)
    return [replace(_pooled(size, whole), name="overview"), _pooled(size, fine)]


def _pooled(size: tuple[int, int], patches: tuple[int, int]) -> ExpectedGrid:
    shape = math.ceil(patches[0] / 2), math.ceil(patches[1] / 2)
    bottom, right = (length * 2 * cells / n for length, cells, n in zip(size, shape, patches, strict=True))
    return ExpectedGrid(shape, (0, 0, right, bottom))


MOLMO2 = AdapterCase("molmo2", load=molmo2, expected_grids=molmo2_grids)
