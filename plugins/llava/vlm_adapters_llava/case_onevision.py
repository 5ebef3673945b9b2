"""The case of LLaVA-OneVision for the conformance suite, and the published rule of its grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_llava.tiny_onevision import MOST, PATCH, PINPOINTS, TILE, llava_onevision


def grids(
    size: tuple[int, int],
    *,
    tile: int = TILE,
    patch: int = PATCH,
    pinpoints: Sequence[Sequence[int]] = tuple(PINPOINTS),
    most: int = MOST,
) -> list[ExpectedGrid]:
    """The image squashed to a tile, then a canvas of tiles without the rows or columns that are padding.

    The canvas is the one on which most of the image's pixels can be shown, the smallest of these. The image is
    scaled to touch it, rounded up, and centred. If more than `most` tiles of cells are left, by over a fifth, they are
    resampled to as many.

    Args:
        size: `(H, W)` of the image.
        tile: Side of a tile, in pixels.
        patch: Side of a cell, in pixels of the canvas.
        pinpoints: The canvases, `(height, width)`.
        most: How many tiles of cells may remain.
    """
    height, width = size
    cells = tile // patch
    seen = cells * patch / tile
    overview = ExpectedGrid((cells, cells), (0, 0, width * seen, height * seen), name="overview")

    def shown(canvas: Sequence[int]) -> tuple[int, int]:
        scale = min(canvas[0] / height, canvas[1] / width)
        used = min(int(height * scale) * int(width * scale), height * width)
        return used, used - canvas[0] * canvas[1]

    canvas = max(pinpoints, key=shown)
    scale = min(canvas[0] / height, canvas[1] / width)
    resized = [min(math.ceil(length * scale), whole) for length, whole in zip(size, canvas, strict=True)]
    rows, columns = (length // tile * cells for length in canvas)
    if width / height > columns / rows:
        dropped = (rows - math.floor(round(height * columns / width, 7))) // 2, 0
    else:
        dropped = 0, (columns - math.floor(round(width * rows / height, 7))) // 2
    left_of = [count - 2 * lost for count, lost in zip((rows, columns), dropped, strict=True)]
    excess = math.sqrt(left_of[0] * left_of[1] / (most * cells**2))
    counts = [int(count // excess) if excess > 1.1 else count for count in left_of]

    def spans(side: int) -> tuple[tuple[float, float], ...]:
        """Where the cells of the rows (0) or columns (1) stand in the image."""
        padding = (canvas[side] - resized[side]) // 2

        def in_image(place: float, cell: int) -> float:
            pixels = cell // cells * tile + (cell % cells + place - cell) * patch
            return (pixels - padding) * size[side] / resized[side]

        edges = [dropped[side] + i * left_of[side] / counts[side] for i in range(counts[side] + 1)]
        return tuple(
            (in_image(start, math.floor(start)), in_image(end, math.ceil(end) - 1)) for start, end in pairwise(edges)
        )

    down, across = spans(0), spans(1)
    box = (across[0][0], down[0][0], across[-1][1], down[-1][1])
    return [overview, ExpectedGrid((counts[0], counts[1]), box, rows=down, columns=across)]


def grids_beside_others(size: tuple[int, int], *, tile: int = TILE, patch: int = PATCH) -> list[ExpectedGrid]:
    """Among several images of a prompt each is padded to a square, which becomes one tile.

    Args:
        size: `(H, W)` of the image.
        tile: Side of a tile, in pixels.
        patch: Side of a cell, in pixels of the tile.
    """
    height, width = size
    side, cells = max(size), tile // patch
    top, left, seen = (side - height) // 2, (side - width) // 2, side * cells * patch / tile
    return [ExpectedGrid((cells, cells), (-left, -top, seen - left, seen - top))]


def video_grids(size: tuple[int, int], frames: int, *, tile: int = TILE, patch: int = PATCH) -> list[ExpectedGrid]:
    """Every frame of a video is squashed to a tile and pooled to half as many cells along each side, rounded up."""
    height, width = size
    cells = tile // patch
    seen, pooled = cells * patch / tile, math.ceil(cells / 2)
    box = (0, 0, width * seen, height * seen)
    return [ExpectedGrid((pooled, pooled), box, frames=(frame, frame + 1)) for frame in range(frames)]


LLAVA_ONEVISION = AdapterCase(
    "llava_onevision",
    load=llava_onevision,
    expected_grids=grids,
    expected_beside_others=grids_beside_others,
    expected_video=video_grids,
)
