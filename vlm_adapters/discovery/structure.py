"""From the places of tokens, in their order, to grids: rows, tiles, separators and the region that a grid covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_adapters.discovery.places import TokenPlaces
from vlm_adapters.errors import BackboneError
from vlm_adapters.geometry import Box, Size

_SAME_LINE = 0.4
"""Share of a cell by which the middles of cells in one row or column may differ."""
_DROP = 0.6
"""Step back up, in cells, with which another grid or tile begins."""
_NEXT_CELL = (0.4, 1.7)
"""Step from a cell to its neighbour, in cells; more than 1 over a seam of tiles."""
_SEAM = 0.08
"""Share of a cell by which columns lie off a straight line where there are seams."""
_NEAR = 0.12
"""Share of a cell by which a grid over the whole image may seem to miss its sides."""
_LONG_STEP = 1.15
"""Step over a seam between tiles, in usual steps."""
_MOST_REACH = 2.5
"""Width of what a token reads, in cells, above which it shows no place."""
_ERRORS = 4
"""Standard errors of a middle that may be noise."""
_FEW = 3
"""Fewest middles through which a straight line is proof of something."""
_FULL = 0.97
"""Known share of a cell's pixels above which its middle is that of the whole cell."""


class NotFoundError(BackboneError):
    """The tokens form no grid, or one that cannot be described."""


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


@dataclass
class _Block:
    """Cells in order that fill a rectangle row by row: their numbers among all cells, as `(h, w)`."""

    cells: np.ndarray


def find_grids(places: TokenPlaces, size: Size) -> tuple[FoundGrid, ...]:
    """Find the grids of an image `(H, W)`, in the order of their tokens.

    Raises:
        NotFoundError: The tokens form no grid.
    """
    where = np.flatnonzero(places.is_cell)
    if not len(where):
        raise NotFoundError(
            "No token of the sequence shows a part of the image: the text sees it by cross-attention, or learned queries "
            "read it (a resampler)."
        )
    counted = np.isin(places.ids, np.unique(places.ids[where]))
    order = np.cumsum(counted) - 1  # index of a token among those that are counted
    wide = _smooth(places.spread[where, 0]) * np.sqrt(12)
    high = _smooth(places.spread[where, 1]) * np.sqrt(12)
    cells = _Cells(places.x[where], places.y[where], places.known[where], wide, high, where)
    groups = _tiled(_blocks(cells), cells)
    grids, end = [], 0
    total = int(counted.sum())
    for index, (tokens, tiles) in enumerate(groups):
        in_order = order[where[tokens]]
        following = order[where[groups[index + 1][0].min()]] if index + 1 < len(groups) else total
        first = int(in_order.min()) - end
        row_end = _row_end(in_order, tiles)
        after = following - int(in_order.max()) - 1
        if after < row_end:
            raise NotFoundError(f"Every row but the last is followed by {row_end} tokens, and the last by {after}.")
        last = after if index + 1 == len(groups) else row_end
        end = int(in_order.max()) + 1 + last
        columns, rows, explained = _lines(cells, tokens, size)
        grids.append(FoundGrid(in_order, columns, rows, tiles, first, row_end, last - row_end, explained))
    reach = np.median(places.spread[where] * np.sqrt(12), axis=0)
    cells_of = [(grid.columns[:, 1] - grid.columns[:, 0]).max() for grid in grids]
    if (len(grids) > 1 and any(grid.tokens.size == 1 for grid in grids)) or reach[0] > _MOST_REACH * max(cells_of):
        raise NotFoundError(
            "Every token reads much of the image at once, as learned queries do (a resampler), so it shows no place in it."
        )
    for index, one in enumerate(grids):
        if any(_beside(one, other) for other in grids[:index]):
            raise NotFoundError("The tokens form several grids of one scale beside each other, in an order without rows.")
    return tuple(grids)


def _beside(one: FoundGrid, other: FoundGrid) -> bool:
    """Whether two grids have cells of one size and show different parts of the image: parts of one grid."""
    (a, b, c, d), (e, f, g, h) = one.box, other.box
    alike = all(
        abs(np.log((x[0, 1] - x[0, 0]) / (y[0, 1] - y[0, 0]))) < 0.2
        for x, y in ((one.columns, other.columns), (one.rows, other.rows))
    )
    overlap = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
    return alike and overlap < 0.5 * min((c - a) * (d - b), (g - e) * (h - f))


@dataclass(frozen=True)
class _Cells:
    x: np.ndarray
    y: np.ndarray
    known: np.ndarray
    wide: np.ndarray
    high: np.ndarray
    where: np.ndarray


def _smooth(values: np.ndarray) -> np.ndarray:
    """The median of every value and its neighbours in order."""
    padded = np.pad(values, 4, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 9), axis=1))


def _blocks(cells: _Cells) -> list[_Block]:
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
            if abs(dy) < _SAME_LINE and _NEXT_CELL[0] < dx < _NEXT_CELL[1]:
                rows[-1].append(i)
            elif _NEXT_CELL[0] < dy < _NEXT_CELL[1] and abs(start) < _SAME_LINE and len(rows[-1]) == len(rows[0]):
                rows.append([i])
            else:
                rows = [[i]]
                blocks.append(rows)
    if any(len({len(row) for row in block}) != 1 for block in blocks):
        raise NotFoundError("The tokens form no rectangle: rows of one grid have different lengths.")
    return [_Block(np.array(block)) for block in blocks]


def _one_rectangle(part: np.ndarray, cells: _Cells) -> _Block | None:
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
            if pitch <= 0 or (len(steps) and not (_NEXT_CELL[0] < steps.min() / pitch and steps.max() / pitch < _NEXT_CELL[1])):
                break
            off = np.abs(places - middles) / pitch
            offs.append(float(np.quantile(off, 0.9)) + 0.1 * float(off.max()))
        else:
            if max(offs) < _SAME_LINE and (best is None or max(offs) < best[0]):
                best = max(offs), _Block(shape)
    return best[1] if best else None


def _pitch(places: np.ndarray, widths: np.ndarray) -> float:
    """Distance of neighbours: the usual step forwards that is about as long as a cell is wide."""
    width = float(np.median(widths))
    steps = np.diff(places) / width
    steps = steps[(steps > _NEXT_CELL[0]) & (steps < _NEXT_CELL[1])]
    return width * float(np.median(steps)) if len(steps) else width


def _by_separators(cells: _Cells) -> _Block:
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
            known = cells.known[shape] > _FULL
            x, y = np.where(known, cells.x[shape], np.nan), np.where(known, cells.y[shape], np.nan)
            off = np.nanmax(np.abs(x - np.nanmedian(x, axis=0))), np.nanmax(np.abs(y - np.nanmedian(y, axis=1)[:, None]))
            fits.append((float(max(off)), shape))
    return _Block(min(fits, key=lambda fit: fit[0])[1])


def _tiled(blocks: list[_Block], cells: _Cells) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Join blocks of one shape and scale that fill a rectangle row by row; the others stay grids by themselves."""
    joined: list[tuple[np.ndarray, tuple[int, int]]] = []
    start = 0
    while start < len(blocks):
        end = start + 1
        while end < len(blocks) and _alike(blocks[start], blocks[end], cells):
            end += 1
        for stop in range(end, start, -1):
            if (tiles := _tile_rows(blocks[start:stop], cells)) is not None:
                rows = [np.concatenate([blocks[start + r * tiles[1] + c].cells for c in range(tiles[1])], axis=1) for r in range(tiles[0])]
                joined.append((np.concatenate(rows), tiles))
                start = stop
                break
    return joined


def _alike(one: _Block, other: _Block, cells: _Cells) -> bool:
    a, b = one.cells, other.cells
    return a.shape == b.shape and all(
        abs(np.log(np.median(size[a]) / np.median(size[b]))) < 0.3 for size in (cells.wide, cells.high)
    )


def _tile_rows(blocks: Sequence[_Block], cells: _Cells) -> tuple[int, int] | None:
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


def _lines(cells: _Cells, tokens: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray, float]:
    """Spans of columns and rows, and the share of known cells that lie within them."""
    full = cells.known[tokens] > _FULL
    columns, wide = _spans(cells.x[tokens], full, cells.wide[tokens], size[1])
    rows, high = _spans(cells.y[tokens].T, full.T, cells.high[tokens], size[0])
    off_x = np.abs(cells.x[tokens] - columns.mean(1)[None, :]) / wide
    off_y = np.abs(cells.y[tokens] - rows.mean(1)[:, None]) / high
    inside = (np.maximum(off_x, off_y) < 0.5)[cells.known[tokens] > 0.5]
    return columns, rows, float(inside.mean()) if inside.size else 0.0


def _spans(places: np.ndarray, full: np.ndarray, widths: np.ndarray, length: int) -> tuple[np.ndarray, float]:
    """Start and end along the last axis, from middles `(others, n)`, and the width of a cell."""
    n = places.shape[1]
    seen = full.any(axis=0)
    if not seen.any():
        raise NotFoundError("No cell of a grid shows the image alone.")
    middles = np.array([np.median(places[full[:, i], i]) if seen[i] else np.nan for i in range(n)])
    index = np.arange(n)
    if n == 1 or seen.sum() == 1:
        width = float(np.median(widths))
        at = float(middles[seen][0])
        if n == 1 and abs(at - length / 2) < 0.1 * length:
            width = float(length)
        middles = at + (index - index[seen][0]) * width
        return np.stack([middles - width / 2, middles + width / 2], axis=1), width
    weight = np.sqrt(full.sum(axis=0))
    noise = np.median(np.abs(places - middles)[full]) * 1.5 / weight[seen].min()
    # the cells at an end may show padding whose place is not known, and seem to stand nearer
    for part, most in ((seen, 0.0), (_without(seen, -1), 0.0), (_without(seen, 0), 0.0), (seen, _SAME_LINE)):
        slope, start = np.polyfit(index[part], middles[part], 1, w=weight[part])
        off = np.abs(middles[part] - start - slope * index[part]).max()
        within = max(_SEAM * slope, _ERRORS * noise)
        if slope > 0 and (off < within or (off < most * slope and not _has_seams(middles[part], slope))):
            edges = start + slope * (np.arange(n + 1) - 0.5)
            edges = _snapped(edges, max(_NEAR * slope, _ERRORS * noise), length)
            return np.stack([edges[:-1], edges[1:]], axis=1), float(slope)
    width = float(np.median(np.diff(middles[seen]) / np.diff(index[seen])))
    if not seen.all():
        middles = np.where(seen, middles, np.interp(index, index[seen], middles[seen]))
    return np.stack([middles - width / 2, middles + width / 2], axis=1), width


def _has_seams(middles: np.ndarray, pitch: float) -> bool:
    """Whether most steps from cell to cell are alike and a few are longer."""
    steps = np.diff(middles) / pitch
    usual = steps[steps < _LONG_STEP * np.median(steps)]
    return len(usual) < len(steps) and float(usual.std()) < _SEAM


def _without(seen: np.ndarray, end: int) -> np.ndarray:
    """Without the first (0) or last (-1) of those seen, where enough are left."""
    part = seen.copy()
    if seen.sum() > _FEW:
        part[np.flatnonzero(seen)[end]] = False
    return part


def _snapped(edges: np.ndarray, near: float, length: int) -> np.ndarray:
    """Edges from one end of the image to the other, where the first and the last are that near them."""
    if max(abs(edges[0]), abs(edges[-1] - length)) < near:
        return np.linspace(0, length, len(edges))
    return edges
