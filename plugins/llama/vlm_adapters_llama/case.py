"""The case of Llama 4 for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

from fractions import Fraction

from vlm_adapters.geometry import Size
from vlm_adapters.testing import SIZES, AdapterCase, ExpectedGrid
from vlm_adapters_llama.tiny import MAX_TILES, PATCH, SIDE, llama4


def llama4_grids(size: Size, *, side: int = SIDE, cell: int = 2 * PATCH, most: int = MAX_TILES) -> list[ExpectedGrid]:
    """The image squashed to one tile, then at its own aspect on a canvas of tiles; the canvas only if it is one tile.

    The canvas is the one that fits the image enlarged least, else the one that shrinks it least, the smallest of
    these. On it the image keeps its size if it is larger than a tile, and lies at the top left.
    """
    height, width = size
    canvases = [(r * side, c * side) for r in range(1, most + 1) for c in range(1, most + 1) if r * c <= most]
    scales = {canvas: min(Fraction(canvas[0], height), Fraction(canvas[1], width)) for canvas in canvases}
    enlarging = [scale for scale in scales.values() if scale >= 1]
    best = min(enlarging) if enlarging else max(scales.values())
    rows, columns = min((c for c in canvases if scales[c] == best), key=lambda canvas: canvas[0] * canvas[1])
    room = min(max(height, side), rows), min(max(width, side), columns)
    scale = min(Fraction(room[0], height), Fraction(room[1], width))
    new_height, new_width = max(1, int(height * scale)), max(1, int(width * scale))
    cells = side // cell
    box = (0, 0, columns * width / new_width, rows * height / new_height)
    fine = ExpectedGrid((rows // cell, columns // cell), box)
    if rows * columns == side * side:
        return [fine]
    return [ExpectedGrid((cells, cells), (0, 0, width, height), name="overview"), fine]


LLAMA4 = AdapterCase("llama4", load=llama4, expected_grids=llama4_grids, sizes=(*SIZES, (40, 60)))
