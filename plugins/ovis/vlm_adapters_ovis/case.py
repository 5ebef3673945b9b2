"""The case of Ovis 2 for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

from vlm_adapters.geometry import Size
from vlm_adapters.testing import SIZES, AdapterCase, ExpectedGrid
from vlm_adapters_ovis.tiny import MAX_TILES, PATCH, SIDE, STRIDE, ovis2


def ovis2_grids(
    size: Size, *, side: int = SIDE, cell: int = STRIDE * PATCH, most: int = MAX_TILES
) -> list[ExpectedGrid]:
    """The image squashed to one tile, then to all of its tiles; to one tile only if it has no more.

    A tile shows no more pixels than fit into a square of `side`, without enlarging. The fewest tiles that show more
    than nine tenths of the image are taken, of several those that show most; where none do, those that show most.
    Rows and columns are then exchanged, as transformers does; the published rule does not exchange them.
    """
    height, width = size

    def shown(rows: int, columns: int) -> float:
        """Share of the image's pixels that such tiles show; the last row and column take the rest of the pixels."""
        heights = [height // rows] * (rows - 1) + [height - (rows - 1) * (height // rows)]
        widths = [width // columns] * (columns - 1) + [width - (columns - 1) * (width // columns)]
        pixels = 0.0
        for h in heights:
            for w in widths:
                shrink = min(1.0, side / max(h, w, 1))
                # Only the long side is limited, and the short side shrinks with it.
                pixels += min(max(h, w), side) * min(h, w) * shrink
        return pixels / (height * width)

    shares = {(r, c): shown(r, c) for r in range(1, most + 1) for c in range(1, most + 1) if r * c <= most}
    enough = {count: share for count, share in shares.items() if share > 0.9}
    if enough:
        columns, rows = min(enough, key=lambda count: (count[0] * count[1], -enough[count], count[1]))
    else:
        columns, rows = min(shares, key=lambda count: (-shares[count], count[0] * count[1], count[1]))
    cells = side // cell
    box = (0, 0, width, height)
    overview = ExpectedGrid((cells, cells), box, name="overview")
    fine = ExpectedGrid((rows * cells, columns * cells), box)
    return [fine] if rows * columns == 1 else [overview, fine]


OVIS2 = AdapterCase("ovis2", load=ovis2, expected_grids=ovis2_grids, sizes=(*SIZES, (40, 40)))
