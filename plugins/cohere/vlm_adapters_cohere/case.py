"""The cases of Aya Vision and Command A Vision for the conformance suite, and the published rules of their grids."""

from __future__ import annotations

from vlm_adapters.geometry import Size
from vlm_adapters.testing import SIZES, AdapterCase, ExpectedGrid
from vlm_adapters_cohere.tiny import FACTOR, MAX_TILES, PATCH, SIDE, aya_vision, cohere2_vision


def aya_vision_grids(
    size: Size, *, side: int = SIDE, cell: int = FACTOR * PATCH, most: int = MAX_TILES
) -> list[ExpectedGrid]:
    """The image squashed to one tile, then to all of its tiles; to one tile only if it has no more.

    The tiles are those whose aspect is nearest to the image's. Of several, in ascending number, the next one is taken
    while the image has more than half of the pixels of its tiles.
    """
    height, width = size
    counts = _counts(most)
    nearest = min(abs(width / height - columns / rows) for rows, columns in counts)
    chosen, *larger = [count for count in counts if abs(width / height - count[1] / count[0]) == nearest]
    for count in larger:
        if 2 * height * width > side * side * count[0] * count[1]:
            chosen = count
    return _grids(size, chosen, side // cell)


def cohere2_vision_grids(
    size: Size, *, side: int = SIDE, cell: int = FACTOR * PATCH, most: int = MAX_TILES
) -> list[ExpectedGrid]:
    """The same for the tiles that enlarge the image least without shrinking it, else for those that shrink it least.

    Of several with one scale, the fewest tiles are taken.
    """
    counts = _counts(most)
    scales = {count: min(side * count[0] / size[0], side * count[1] / size[1]) for count in counts}
    enlarging = [count for count in counts if scales[count] >= 1]
    chosen = min(enlarging, key=scales.__getitem__) if enlarging else max(counts, key=scales.__getitem__)
    return _grids(size, chosen, side // cell)


def _counts(most: int) -> list[Size]:
    """Every number of tiles `(rows, columns)`, in ascending order; of equal ones, the tall first."""
    counts = [(rows, columns) for columns in range(1, most + 1) for rows in range(1, most + 1)]
    return sorted((count for count in counts if count[0] * count[1] <= most), key=lambda count: count[0] * count[1])


def _grids(size: Size, tiles: Size, cells: int) -> list[ExpectedGrid]:
    box = (0, 0, size[1], size[0])
    fine = ExpectedGrid((tiles[0] * cells, tiles[1] * cells), box)
    return [fine] if tiles == (1, 1) else [ExpectedGrid((cells, cells), box, name="overview"), fine]


_ONE_TILE = (40, 40)
AYA_VISION = AdapterCase("aya_vision", load=aya_vision, expected_grids=aya_vision_grids, sizes=(*SIZES, _ONE_TILE))
COHERE2_VISION = AdapterCase(
    "cohere2_vision", load=cohere2_vision, expected_grids=cohere2_vision_grids, sizes=(*SIZES, _ONE_TILE)
)
