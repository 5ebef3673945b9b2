"""The cases of the Gemma family for the conformance suite, and the published rules of their grids."""

from __future__ import annotations

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_gemma.tiny import CELLS, gemma3


def square_grids(size: tuple[int, int], *, cells: int = CELLS) -> list[ExpectedGrid]:
    """The whole image squashed to a square."""
    return [ExpectedGrid((cells, cells), (0, 0, size[1], size[0]))]


GEMMA3 = AdapterCase("gemma3", load=gemma3, expected_grids=square_grids)
