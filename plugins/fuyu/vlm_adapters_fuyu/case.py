"""The case of Fuyu for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters_fuyu.tiny import MOST, PATCH, fuyu


def fuyu_grids(
    size: tuple[int, int], *, limit: tuple[int, int] = (MOST, MOST), patch: int = PATCH
) -> list[ExpectedGrid]:
    """The rule of the grid: shrunk by one factor to fit `limit`, sides rounded down, then padded to full patches."""
    height, width = size
    factor = min(limit[0] / height, limit[1] / width, 1)
    new_height, new_width = int(height * factor), int(width * factor)
    rows, columns = -(-new_height // patch), -(-new_width // patch)
    box = (0, 0, columns * patch * width / new_width, rows * patch * height / new_height)
    return [ExpectedGrid((rows, columns), box)]


FUYU = AdapterCase("fuyu", load=fuyu, expected_grids=fuyu_grids, several_images=False)
