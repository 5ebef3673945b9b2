"""Cells in the order of their tokens, cut into rectangles that are read row by row, and those joined as tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_adapters.discovery.places import TokenPlaces
from vlm_adapters.errors import BackboneError

SAME_LINE = 0.4
"""Share of a cell by which the middles of cells in one row or column may differ."""
_DROP = 0.6
"""Step back up, in cells, with which another grid or tile begins."""
_NEXT_CELL = (0.4, 1.9)
"""Step from a cell to its neighbour, in cells; more than 1 over a seam of tiles."""
FULL = 0.97
"""Known share of a cell's pixels above which its middle is that of the whole cell."""


class NotFoundError(BackboneError):
    """The tokens form no grid, or one that cannot be described."""


@dataclass(frozen=True)
class Cells:
    """The tokens of an image that are cells, in their order.

    Attributes:
        x: `(n,)` middle of each, in pixels of the image.
        y: As `x`, downwards.
        known: Share of its pixels whose place is known.
        wide: Width of what it shows.
        high: Its height.
        where: Its place among all tokens.
    """

    x: np.ndarray
    y: np.ndarray
    known: np.ndarray
    wide: np.ndarray
    high: np.ndarray
    where: np.ndarray

    @classmethod
    def of(cls, places: TokenPlaces, where: np.ndarray) -> Cells:
        """The cells at some places among all tokens."""
        wide, high = (_smooth(places.spread[where, side]) * np.sqrt(12) for side in (0, 1))
        return cls(places.x[where], places.y[where], places.known[where], wide, high, where)


@dataclass
class _Block:
    """Cells in order that fill a rectangle row by row: their numbers among all cells, as `(h, w)`."""

    cells: np.ndarray


def _smooth(values: np.ndarray) -> np.ndarray:
    """The median of every value and its neighbours in order."""
    padded = np.pad(values, 4, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 9), axis=1))


def _blocks(cells: Cells) -> list[_Block]:
    """Cut the cells where the next one neither follows in its row nor begins a row below."""
    if (cells.known < 0.1).any():
        return [_by_separators(cells)]
    if (whole := _one_rectangle(np.arange(len(cells.x)), cells)) is not None:
        return [whole]
    drops = np.flatnonzero(np.diff(cells.y) < -_DROP * np.maximum(cells.high[1:], cells.high[:-1])) + 1
    blocks: list[list[list[int]]] = []
    for part in np.split(np.arange(len(cells.y)), drops):
        wide, high = _pitch(cells.x[part], cells.wide[part]), _pitch(cells.y[part], cells.high[part])
        cells.wide[part], cells.high[part] = wide, high
        if (whole := _one_rectangle(part, cells)) is not None:
            blocks.append(whole.cells.tolist())
            continue
        rows = [[int(part[0])]]
        blocks.append(rows)
        for i in part[1:].tolist():
            dx, dy = (cells.x[i] - cells.x[i - 1]) / wide, (cells.y[i] - cells.y[i - 1]) / high
            start = (cells.x[i] - cells.x[rows[0][0]]) / wide
            if abs(dy) < SAME_LINE and _NEXT_CELL[0] < dx < _NEXT_CELL[1]:
                rows[-1].append(i)
            elif _NEXT_CELL[0] < dy < _NEXT_CELL[1] and abs(start) < SAME_LINE and len(rows[-1]) == len(rows[0]):
                rows.append([i])
            else:
                rows = [[i]]
                blocks.append(rows)
    if any(len({len(row) for row in block}) != 1 for block in blocks):
        raise NotFoundError("The tokens form no rectangle: rows of one grid have different lengths.")
    return [_Block(np.array(block)) for block in blocks]


def _one_rectangle(part: np.ndarray, cells: Cells) -> _Block | None:
    """The rows of cells in order that lie on straight columns and rows of even steps; None if they do not."""
    best: tuple[float, _Block] | None = None
    for h in range(1, len(part) + 1):
        if len(part) % h:
            continue
        shape = part.reshape(h, -1)
        offs = []
        for places, width in ((cells.x[shape], cells.wide[shape]), (cells.y[shape].T, cells.high[shape])):
            middles = np.median(places, axis=0)
            steps = np.diff(middles)
            pitch = float(np.median(steps)) if len(steps) else float(np.median(width))
            if pitch <= 0 or (
                len(steps) and not (_NEXT_CELL[0] < steps.min() / pitch and steps.max() / pitch < _NEXT_CELL[1])
            ):
                break
            off = np.abs(places - middles) / pitch
            offs.append(float(np.quantile(off, 0.9)) + 0.1 * float(off.max()))
        else:
            if max(offs) < SAME_LINE and (best is None or max(offs) < best[0]):
                best = max(offs), _Block(shape)
    return best[1] if best else None


def _pitch(places: np.ndarray, widths: np.ndarray) -> float:
    """Distance of neighbours: the usual step forwards that is about as long as a cell is wide."""
    width = float(np.median(widths))
    steps = np.diff(places) / width
    steps = steps[(steps > _NEXT_CELL[0]) & (steps < _NEXT_CELL[1])]
    return width * float(np.median(steps)) if len(steps) else width


def _by_separators(cells: Cells) -> _Block:
    """One block, where the places of some cells are not known: in rows between separators, or in the rows that fit."""
    breaks = np.flatnonzero(np.diff(cells.where) > 1) + 1
    lengths = set(np.diff([0, *breaks, len(cells.where)]).tolist())
    numbers = np.arange(len(cells.where))
    if len(breaks) and len(lengths) == 1:
        return _Block(numbers.reshape(-1, lengths.pop()))
    fits = []
    for h in range(1, len(numbers) + 1):
        if len(numbers) % h == 0:
            shape = numbers.reshape(h, -1)
            hidden = cells.known[shape] < FULL
            x, y = np.where(hidden, np.nan, cells.x[shape]), np.where(hidden, np.nan, cells.y[shape])
            off = [_spread_of_lines(x.T), _spread_of_lines(y)]
            fits.append((max(off), shape))
    return _Block(min(fits, key=lambda fit: fit[0])[1])


def _spread_of_lines(places: np.ndarray) -> float:
    """How far any place lies from the middle one of its line, NaN left out."""
    lines = [line[~np.isnan(line)] for line in places]
    return max((float(np.abs(line - np.median(line)).max()) for line in lines if len(line)), default=np.inf)


def tiled_blocks(cells: Cells) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Join blocks of one shape and scale that fill a rectangle row by row; the others stay grids by themselves.

    Returns:
        For every grid the numbers of its cells `(h, w)` among all, and its tiles, down and across.

    Raises:
        NotFoundError: The cells form no rectangles.
    """
    blocks = _blocks(cells)
    joined: list[tuple[np.ndarray, tuple[int, int]]] = []
    start = 0
    while start < len(blocks):
        end = start + 1
        while end < len(blocks) and _alike(blocks[start], blocks[end], cells):
            end += 1
        for stop in range(end, start, -1):
            if (tiles := _tile_rows(blocks[start:stop], cells)) is not None:
                rows = [
                    np.concatenate([blocks[start + r * tiles[1] + c].cells for c in range(tiles[1])], axis=1)
                    for r in range(tiles[0])
                ]
                joined.append((np.concatenate(rows), tiles))
                start = stop
                break
    return joined


def _alike(one: _Block, other: _Block, cells: Cells) -> bool:
    a, b = one.cells, other.cells
    return a.shape == b.shape and all(
        abs(np.log(np.median(size[a]) / np.median(size[b]))) < 0.3 for size in (cells.wide, cells.high)
    )


def _tile_rows(blocks: Sequence[_Block], cells: Cells) -> tuple[int, int] | None:
    """Rows and columns of tiles, if the blocks fill a rectangle without overlap; `(1, 1)` for one block."""
    if len(blocks) == 1:
        return 1, 1
    h, w = blocks[0].cells.shape
    x = np.array([np.median(cells.x[block.cells]) for block in blocks])
    y = np.array([np.median(cells.y[block.cells]) for block in blocks])
    wide = np.median([np.median(cells.wide[block.cells]) for block in blocks]) * w
    high = np.median([np.median(cells.high[block.cells]) for block in blocks]) * h
    columns = int(np.argmax(y > y[0] + 0.5 * high)) or len(blocks)
    if len(blocks) % columns:
        return None
    across, down = x.reshape(-1, columns), y.reshape(-1, columns)
    steps = [*(np.diff(across, axis=1) / wide).flatten(), *(np.diff(down, axis=0) / high).flatten()]
    offsets = [*((across - across[:1]) / wide).flatten(), *((down - down[:, :1]) / high).flatten()]
    if all(0.7 < step < 1.4 for step in steps) and all(abs(offset) < 0.25 for offset in offsets):
        return len(blocks) // columns, columns
    return None
