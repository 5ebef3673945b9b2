"""The cases of Idefics3 and SmolVLM2 for the conformance suite, and the published rule of their grids."""

from __future__ import annotations

from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_smolvlm.tiny import CELLS, EVEN_TILE, MOST_TILES, PATCH, SCALE, SEAMED_TILE, idefics3, smolvlm


def grids(
    size: tuple[int, int], *, tile: int, cells: int = CELLS, cell: int = PATCH * SCALE, most_tiles: int = MOST_TILES
) -> list[ExpectedGrid]:
    """The long side becomes that of `most_tiles` tiles, the short one follows, up to even, then up to full tiles.

    Args:
        size: `(H, W)` of the image.
        tile: Side of a tile, in pixels.
        cells: Cells along a side of a tile.
        cell: Side of a cell, in pixels of the tile.
        most_tiles: Tiles along the image's long side.
    """
    height, width = size
    long, short = max(size), min(size)
    proportional = most_tiles * tile * short // long
    tiles = most_tiles, max(1, -(-(proportional + proportional % 2) // tile))
    rows, columns = tiles if height > width else tiles[::-1]
    shown = cells * cell / tile  # the share of a tile's side that cells show
    overview = ExpectedGrid((cells, cells), (0, 0, width * shown, height * shown), name="overview")

    def spans(count: int, length: int) -> tuple[tuple[float, float], ...]:
        scale = length / (count * tile)
        starts = [t * tile + c * cell for t in range(count) for c in range(cells)]
        return tuple((start * scale, (start + cell) * scale) for start in starts)

    fine = ExpectedGrid(
        (cells * rows, cells * columns),
        (0, 0, width, height),
        rows=spans(rows, height),
        columns=spans(columns, width),
    )
    return [overview, fine]


IDEFICS3 = AdapterCase("idefics3", load=idefics3, expected_grids=partial(grids, tile=EVEN_TILE))
SMOLVLM = AdapterCase("smolvlm", load=smolvlm, expected_grids=partial(grids, tile=SEAMED_TILE))
