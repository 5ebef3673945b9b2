"""The cases of LLaVA and LLaVA-Next for the conformance suite, and the published rules of their grids."""

from __future__ import annotations

import math

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_llava.tiny import PINPOINTS, llava, llava_next


def llava_grids(size: tuple[int, int], *, side: int = 64, patch: int = 8) -> list[ExpectedGrid]:
    """The image centred on a square as long as its long side, up to the rounding of the resize and the padding."""
    height, width = size
    scale = side / max(size)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (side - new_height) // 2, (side - new_width) // 2
    down, across = height / new_height, width / new_width
    box = (-left * across, -top * down, (side - left) * across, (side - top) * down)
    return [ExpectedGrid((side // patch, side // patch), box)]


def llava_next_grids(
    size: tuple[int, int], *, side: int = 64, patch: int = 8, pinpoints: list[list[int]] = PINPOINTS
) -> list[ExpectedGrid]:
    """The whole image squashed to a square, then a canvas of tiles without the rows or columns that are padding.

    The canvas is the one on which most of the image's pixels can be shown, the smallest of these. The image is
    scaled to touch it, rounded up, and centred. Whole rows (or columns) of cells that lie beyond the image are
    dropped on both sides, as many on one as on the other.
    """
    height, width = size

    def shown(canvas: list[int]) -> tuple[int, int]:
        scale = min(canvas[0] / height, canvas[1] / width)
        used = min(int(height * scale) * int(width * scale), height * width)
        return used, used - canvas[0] * canvas[1]

    rows, columns = max(pinpoints, key=shown)
    cells = side // patch
    overview = ExpectedGrid((cells, cells), (0, 0, width, height), "overview")
    scale = min(rows / height, columns / width)
    new_height, new_width = min(math.ceil(height * scale), rows), min(math.ceil(width * scale), columns)
    if width / height > columns / rows:
        dropped = 0, (rows // patch - math.floor(round(height * (columns // patch) / width, 7))) // 2
    else:
        dropped = (columns // patch - math.floor(round(width * (rows // patch) / height, 7))) // 2, 0
    left = dropped[0] * patch - (columns - new_width) // 2
    top = dropped[1] * patch - (rows - new_height) // 2
    across, down = width / new_width, height / new_height
    shape = rows // patch - 2 * dropped[1], columns // patch - 2 * dropped[0]
    box = (left * across, top * down, (left + shape[1] * patch) * across, (top + shape[0] * patch) * down)
    return [overview, ExpectedGrid(shape, box)]


LLAVA = AdapterCase(
    "llava",
    load=llava,
    expected_grids=llava_grids,
    pixels_differ="images are laid on a square; the stock processor crops the ends of those that are not square",
)
LLAVA_NEXT = AdapterCase("llava_next", load=llava_next, expected_grids=llava_next_grids)
