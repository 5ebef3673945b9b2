"""From the places of tokens, in their order, to grids: rows, tiles, separators and the region that a grid covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vlm_adapters.discovery.blocks import FULL, Cells, NotFoundError, tiled_blocks
from vlm_adapters.discovery.places import TokenPlaces
from vlm_adapters.discovery.spans import spans_of
from vlm_adapters.geometry import Box, Size

_MOST_REACH = 2.5
"""Width of what a token reads, in cells, above which it shows no place."""


@dataclass(frozen=True)
class FoundGrid:
    """A grid of one image.

    Attributes:
        tokens: `(h, w)` index among the image's counted tokens of every cell.
        columns: Start and end of every column, in pixels of the image.
        rows: Start and end of every row, in pixels of the image.
        tiles: Rows and columns of tiles, whose tokens come tile after tile.
        first: Counted tokens before the first cell.
        row_end: Counted tokens after every row.
        last: Counted tokens after the last row.
        explained: Share of the cells with a known place that lie where the grid says.
    """

    tokens: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    tiles: tuple[int, int]
    first: int
    row_end: int
    last: int
    explained: float

    @property
    def box(self) -> Box:
        """Region `(left, top, right, bottom)`, in pixels of the image."""
        return float(self.columns[0, 0]), float(self.rows[0, 0]), float(self.columns[-1, 1]), float(self.rows[-1, 1])

    def in_order(self, start: int) -> np.ndarray:
        """Where its cells stand, `(h, w)`, if its tokens come as it says.

        Args:
            start: Number of counted tokens before it.
        """
        (down, across), (h, w) = self.tiles, self.tokens.shape
        height, width = h // down, w // across + self.row_end
        numbers = np.arange(down * across * height * width).reshape(down, across, height, width)
        cells = numbers[..., : w // across].transpose(0, 2, 1, 3).reshape(h, w)
        return start + self.first + cells


def find_grids(places: TokenPlaces, size: Size) -> tuple[FoundGrid, ...]:
    """Find the grids of an image `(H, W)`, in the order of their tokens.

    Raises:
        NotFoundError: The tokens form no grid.
    """
    where = np.flatnonzero(places.is_cell)
    if not len(where):
        raise NotFoundError(
            "No token of the sequence shows a part of the image: the text sees it by cross-attention, or learned "
            "queries read it (a resampler)."
        )
    counted = np.isin(places.ids, np.unique(places.ids[where]))
    order = np.cumsum(counted) - 1  # index of a token among those that are counted
    cells = Cells.of(places, where)
    groups = tiled_blocks(cells)
    grids: list[FoundGrid] = []
    end = 0
    for index, (numbers, tiles) in enumerate(groups):
        tokens = order[where[numbers]]
        following = order[where[groups[index + 1][0].min()]] if index + 1 < len(groups) else int(counted.sum())
        row_end = _row_end(tokens, tiles)
        last = following - int(tokens.max()) - 1 - row_end if index + 1 == len(groups) else 0
        columns, rows, explained = _lines(cells, numbers, size)
        grid = FoundGrid(tokens, columns, rows, tiles, int(tokens.min()) - end, row_end, last, explained)
        if last < 0 or not np.array_equal(tokens, grid.in_order(end)):
            raise NotFoundError("Tokens that are no cells stand among the cells of a grid, not only between its rows.")
        grids.append(grid)
        end = int(tokens.max()) + 1 + row_end
    _check_places(grids, places, where)
    return tuple(grids)


def _check_places(grids: Sequence[FoundGrid], places: TokenPlaces, where: np.ndarray) -> None:
    """Make sure that tokens show cells and no more, and that no grid is part of another.

    Raises:
        NotFoundError: They do not.
    """
    reach = float(np.median(places.spread[where, 0])) * np.sqrt(12)
    widest = max(float((grid.columns[:, 1] - grid.columns[:, 0]).max()) for grid in grids)
    if (len(grids) > 1 and any(grid.tokens.size == 1 for grid in grids)) or reach > _MOST_REACH * widest:
        raise NotFoundError(
            "Every token reads much of the image at once, as learned queries do (a resampler): it shows no place."
        )
    if any(_beside(one, other) for one, other in combinations(grids, 2)):
        raise NotFoundError("The tokens form several grids of one scale beside each other, in an order without rows.")


def _beside(one: FoundGrid, other: FoundGrid) -> bool:
    """Whether two grids have cells of one size and show different parts of the image: parts of one grid."""
    (a, b, c, d), (e, f, g, h) = one.box, other.box
    alike = all(
        abs(np.log((x[0, 1] - x[0, 0]) / (y[0, 1] - y[0, 0]))) < 0.2
        for x, y in ((one.columns, other.columns), (one.rows, other.rows))
    )
    overlap = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
    return alike and overlap < 0.5 * min((c - a) * (d - b), (g - e) * (h - f))


def _row_end(tokens: np.ndarray, tiles: tuple[int, int]) -> int:
    """Counted tokens between rows that are no cells; rows within a tile only."""
    h, w = tokens.shape[0] // tiles[0], tokens.shape[1] // tiles[1]
    steps = np.diff(tokens, axis=1)
    inner = np.ones(steps.shape[1], dtype=bool)
    inner[w - 1 :: w] = False
    if (steps[:, inner] != 1).any():
        raise NotFoundError("Tokens that are no cells stand within a row.")
    starts = tokens[:, ::w]
    gaps = np.diff(starts, axis=0) - w
    within = np.ones(len(gaps), dtype=bool)
    within[h - 1 :: h] = False
    found = set(gaps[within].flatten().tolist())
    if len(found) > 1:
        raise NotFoundError(f"Between rows stand {sorted(found)} tokens that are no cells.")
    return int(found.pop()) if found else 0


def _lines(cells: Cells, tokens: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray, float]:
    """Spans of columns and rows, and the share of known cells that lie within them."""
    full = cells.known[tokens] > FULL
    columns, wide = spans_of(cells.x[tokens], full, cells.wide[tokens], size[1])
    rows, high = spans_of(cells.y[tokens].T, full.T, cells.high[tokens], size[0])
    off_x = np.abs(cells.x[tokens] - columns.mean(1)[None, :]) / wide
    off_y = np.abs(cells.y[tokens] - rows.mean(1)[:, None]) / high
    inside = (np.maximum(off_x, off_y) < 0.5)[cells.known[tokens] > 0.5]
    return columns, rows, float(inside.mean()) if inside.size else 0.0
