"""Grids from places of tokens that are made up: whatever the layout, the tokens come back in their cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vlm_adapters.discovery.blocks import NotFoundError
from vlm_adapters.discovery.places import TokenPlaces
from vlm_adapters.discovery.structure import find_grids

CELL, TEXT, NEWLINE = 7, 1, 9
"""Ids of tokens."""


class Written:
    """Tokens of an image, written one after another."""

    def __init__(self, noise: float = 0.05, seed: int = 0) -> None:
        self.ids: list[int] = []
        self.x: list[float] = []
        self.y: list[float] = []
        self.spread: list[tuple[float, float]] = []
        self._random, self._noise = np.random.default_rng(seed), noise

    def block(
        self, columns: Sequence[float], rows: Sequence[float], cell: tuple[float, float], *, row_end: int | None = None
    ) -> np.ndarray:
        """Cells `(width, height)` at middles, row by row, each row followed by a token; their numbers."""
        numbers = np.zeros((len(rows), len(columns)), dtype=int)
        for r, y in enumerate(rows):
            for c, x in enumerate(columns):
                numbers[r, c] = len(self.ids)
                off = self._random.normal(0, self._noise, 2) * cell
                self._add(CELL, x + off[0], y + off[1], (cell[0] / 12**0.5, cell[1] / 12**0.5))
            if row_end is not None:
                self.other(row_end)
        return numbers

    def other(self, identifier: int) -> None:
        """A token that shows nothing."""
        self._add(identifier, 0, 0, (0, 0))

    def _add(self, identifier: int, x: float, y: float, spread: tuple[float, float]) -> None:
        self.ids.append(identifier)
        self.x.append(x)
        self.y.append(y)
        self.spread.append(spread)

    def places(self) -> TokenPlaces:
        """What probes would say of it."""
        spread = np.array(self.spread)
        is_cell = spread[:, 0] > 0
        return TokenPlaces(
            np.array(self.ids), is_cell, is_cell.astype(float), np.array(self.x), np.array(self.y), spread
        )


def middles(count: int, length: float, start: float = 0) -> np.ndarray:
    return start + (np.arange(count) + 0.5) * length / count


def test_one_grid_over_the_image() -> None:
    made = Written()
    made.other(TEXT)
    made.block(middles(6, 120), middles(4, 100), (20, 25))
    (grid,) = find_grids(made.places(), (100, 120))
    assert grid.tokens.tolist() == np.arange(24).reshape(4, 6).tolist()
    assert grid.box == pytest.approx((0, 0, 120, 100))


def test_a_newline_of_the_same_id_ends_every_row() -> None:
    made = Written()
    made.block(middles(6, 120), middles(4, 100), (20, 25), row_end=CELL)
    (grid,) = find_grids(made.places(), (100, 120))
    assert (grid.first, grid.row_end, grid.last) == (0, 1, 0)
    assert grid.tokens[1].tolist() == list(range(7, 13))


def test_a_newline_of_another_id_is_not_counted() -> None:
    made = Written()
    made.block(middles(6, 120), middles(4, 100), (20, 25), row_end=NEWLINE)
    (grid,) = find_grids(made.places(), (100, 120))
    assert (grid.row_end, grid.tokens[1].tolist()) == (0, list(range(6, 12)))


def test_padding_is_part_of_the_grid() -> None:
    made = Written()
    made.block(middles(8, 160), middles(8, 160, -40), (20, 20))
    (grid,) = find_grids(made.places(), (80, 160))
    assert grid.box == pytest.approx((0, -40, 160, 120), abs=1)


def test_tiles_one_after_another_and_an_overview_last() -> None:
    made = Written()
    numbers = [made.block(middles(4, 60, 60 * c), middles(4, 40, 40 * r), (15, 10)) for r in range(2) for c in range(3)]
    overview = made.block(middles(4, 180), middles(4, 80), (45, 20))
    fine, coarse = find_grids(made.places(), (80, 180))
    assert fine.tiles == (2, 3)
    assert fine.tokens.tolist() == np.block([numbers[:3], numbers[3:]]).tolist()
    assert coarse.tokens.tolist() == overview.tolist()


def test_pixels_that_belong_to_no_cell_are_seams() -> None:
    made = Written(noise=0.02)
    columns = [tile * 66 + 10 + 20 * cell for tile in range(2) for cell in range(3)]
    made.block(columns, middles(5, 100), (20, 20))
    (grid,) = find_grids(made.places(), (100, 132))
    assert grid.columns[:, 0].tolist() == pytest.approx([0, 20, 40, 66, 86, 106], abs=1)


def test_tokens_that_all_read_the_whole_image_are_no_grid() -> None:
    made = Written()
    for _ in range(8):
        made.block([60], [50], (120, 100))
    with pytest.raises(NotFoundError, match="a resampler"):
        find_grids(made.places(), (100, 120))


def test_a_text_beside_the_image_alone_shows_nothing() -> None:
    made = Written()
    for _ in range(8):
        made.other(TEXT)
    with pytest.raises(NotFoundError, match="cross-attention"):
        find_grids(made.places(), (100, 120))


def test_tiles_that_come_column_by_column_are_tall_tiles() -> None:
    made = Written()
    numbers = [
        [made.block(middles(4, 60, 60 * c), middles(4, 40, 40 * r), (15, 10)) for r in range(2)] for c in range(2)
    ]
    (grid,) = find_grids(made.places(), (80, 120))
    assert grid.tiles == (1, 2)
    assert grid.tokens.tolist() == np.hstack([np.vstack(column) for column in numbers]).tolist()


def test_rows_of_different_lengths_are_no_grid() -> None:
    made = Written()
    made.block(middles(6, 120), [10, 30], (20, 20))
    made.block(middles(6, 120)[:5], [50], (20, 20))
    made.block(middles(6, 120), [70, 90], (20, 20))
    with pytest.raises(NotFoundError):
        find_grids(made.places(), (100, 120))


def test_cells_at_uneven_steps_are_no_grid() -> None:
    made = Written(noise=0.01)
    made.block([10, 30, 56, 76, 90, 110], middles(5, 100), (20, 20))
    with pytest.raises(NotFoundError, match="uneven steps"):
        find_grids(made.places(), (100, 120))
