"""The cases of Mistral 3 and of LLaVA with a Pixtral tower for the conformance suite."""

from __future__ import annotations

import math
from functools import partial

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_llava.tiny_native_rows import LONGEST, MERGE, PATCH, mistral3, pixtral


def grids(size: tuple[int, int], *, cell: int, longest: int = LONGEST) -> list[ExpectedGrid]:
    """The image shrunk until no side is longer than `longest`, then stretched to full cells.

    Args:
        size: `(H, W)` of the image.
        cell: Side of a cell, in pixels of the resized image.
        longest: Longest side, in pixels.
    """
    height, width = size
    ratio = max(1.0, height / longest, width / longest)
    shape = math.ceil(math.floor(height / ratio) / cell), math.ceil(math.floor(width / ratio) / cell)
    return [ExpectedGrid(shape, (0, 0, width, height))]


MISTRAL3 = AdapterCase("mistral3", load=mistral3, expected_grids=partial(grids, cell=PATCH * MERGE))
PIXTRAL = AdapterCase("llava", load=pixtral, expected_grids=partial(grids, cell=PATCH))
