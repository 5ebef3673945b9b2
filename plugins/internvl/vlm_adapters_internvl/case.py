"""The case of InternVL for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

from vlm_adapters.geometry import Size
from vlm_adapters.testing import SIZES, AdapterCase, ExpectedGrid
from vlm_adapters_internvl.tiny import MAX_TILES, PATCH, SIDE, internvl


def internvl_grids(size: Size, *, side: int = SIDE, cell: int = 2 * PATCH, most: int = MAX_TILES) -> list[ExpectedGrid]:
    """The image squashed to one tile, then to all of its tiles; to one tile only if it has no more.

    The tiles are those whose aspect is nearest to the image's. Of several, in ascending number, the next one is taken
    while the image has more than half of the pixels of its tiles.
    """
    height, width = size
    counts = [(r, c) for c in range(1, most + 1) for r in range(1, most + 1) if r * c <= most]
    counts.sort(key=lambda count: count[0] * count[1])
    nearest = min(abs(width / height - columns / rows) for rows, columns in counts)
    equal = [count for count in counts if abs(width / height - count[1] / count[0]) == nearest]
    rows, columns = equal[0]
    for count in equal[1:]:
        if 2 * height * width > side * side * count[0] * count[1]:
            rows, columns = count
    cells = side // cell
    box = (0, 0, width, height)
    overview = ExpectedGrid((cells, cells), box, name="overview")
    fine = ExpectedGrid((rows * cells, columns * cells), box)
    return [fine] if rows * columns == 1 else [overview, fine]


INTERNVL = AdapterCase("internvl", load=internvl, expected_grids=internvl_grids, sizes=(*SIZES, (40, 40)))
