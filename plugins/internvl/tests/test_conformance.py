"""The tiny random InternVL passes every check; the oracle gives the published figures."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from vlm_adapters import GridRequest, Prompt
from vlm_adapters.geometry import Size
from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_internvl.case import INTERNVL, internvl_grids
from vlm_adapters_internvl.tiny import internvl


@parametrize_with_checks([INTERNVL])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


def test_every_cell_shows_its_part_of_the_image() -> None:
    """Also at the seams of the 2 x 3 tiles: a change of a cell's pixels changes the state of its token most."""
    size, adapter = (133, 211), internvl()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    def states(of: np.ndarray) -> list[Tensor]:
        inputs = adapter.preprocess([Prompt.describe(Image.fromarray(of), "a red circle")])
        return [grids.hidden[0] for grids in adapter.extract(inputs, GridRequest(layers=(), hidden_layers=[0]))[0]]

    before = states(pixels)
    for index, grid in enumerate(internvl_grids(size)):
        cells = [(row, column) for row in range(grid.shape[0]) for column in range(grid.shape[1])]
        found = []
        for cell in cells:
            left, top, right, bottom = map(round, grid.cell_box(*cell))
            changed = pixels.copy()
            changed[top:bottom, left:right] = 255 - changed[top:bottom, left:right]
            change = (states(changed)[index] - before[index]).norm(dim=0)
            found.append(divmod(int(change.argmax()), grid.shape[1]))
        assert found == cells, grid.name


def published(size: Size) -> list[tuple[str, tuple[int, int]]]:
    return [(grid.name, grid.shape) for grid in internvl_grids(size, side=448, cell=28, most=12)]


def test_published_grids() -> None:
    assert published((480, 640)) == [("overview", (16, 16)), ("fine", (48, 64))]
    assert published((640, 480)) == [("overview", (16, 16)), ("fine", (64, 48))]
    assert published((448, 896)) == [("overview", (16, 16)), ("fine", (16, 32))]
    assert published((300, 300)) == [("fine", (16, 16))]
    assert internvl_grids((300, 300))[0].box == (0, 0, 300, 300)
