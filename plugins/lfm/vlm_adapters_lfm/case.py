"""The case of LFM2-VL for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

import math

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_lfm.tiny import FEWEST_CELLS, MERGE, MOST_CELLS, MOST_TILES, PATCH, TILE, lfm2_vl


def grids(
    size: tuple[int, int],
    *,
    cell: int = PATCH * MERGE,
    fewest_cells: int = FEWEST_CELLS,
    most_cells: int = MOST_CELLS,
    tile: int = TILE,
    most_tiles: int = MOST_TILES,
) -> list[ExpectedGrid]:
    """Sides rounded to full cells, and scaled until there are neither too few cells nor too many.

    An image of more than twice as many pixels as these cells have is also stretched over 2 to `most_tiles` tiles: over
    those whose aspect is nearest to its own, and of those of one aspect over the most that it fills by half.

    Args:
        size: `(H, W)` of the image.
        cell: Side of a cell, in pixels.
        fewest_cells: How many cells an image has at least.
        most_cells: How many it has at most, without its tiles.
        tile: Side of a tile, in pixels.
        most_tiles: How many tiles there may be.
    """
    height, width = size
    box = (0, 0, width, height)
    rounded = [max(1, round(length / cell)) for length in size]
    too_large = 2 * most_cells < math.prod(max(PATCH / cell, round(length / cell)) for length in size)
    if math.prod(rounded) > most_cells:
        scale = math.sqrt(most_cells * cell**2 / (height * width))
        rounded = [max(1, math.floor(length * scale / cell)) for length in size]
    elif math.prod(rounded) < fewest_cells:
        scale = math.sqrt(fewest_cells * cell**2 / (height * width))
        rounded = [math.ceil(length * scale / cell) for length in size]
    whole = ExpectedGrid((rounded[0], rounded[1]), box)
    if not too_large:
        return [whole]
    shapes = [(h, w) for h in range(1, most_tiles + 1) for w in range(1, most_tiles + 1) if 2 <= h * w <= most_tiles]

    def rank(shape: tuple[int, int]) -> tuple[float, int]:
        filled = height * width > 0.5 * math.prod(shape) * tile**2
        return abs(width / height - shape[1] / shape[0]), -math.prod(shape) if filled else math.prod(shape)

    down, across = min(shapes, key=rank)
    fine = ExpectedGrid((down * tile // cell, across * tile // cell), box)
    return [ExpectedGrid(whole.shape, box, name="overview"), fine]


LFM2_VL = AdapterCase("lfm2_vl", load=lfm2_vl, expected_grids=grids)
