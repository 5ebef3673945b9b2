"""Where the rows or columns of a grid begin and end, from the middles of its cells."""

from __future__ import annotations

import numpy as np

from vlm_adapters.discovery.blocks import NotFoundError

_SEAM = 0.08
"""Share of a cell by which columns lie off a straight line where there are seams."""
_EVEN = 0.04
"""Share of a cell by which steps within a tile differ, as a standard deviation."""
_LENIENT = 0.12
"""Share of a cell by which a column may lie off a straight line through all of them, where there are no seams."""
_NEAR = 0.12
"""Share of a cell by which a grid over the whole image may seem to miss its sides."""
_LONG_STEP = 1.15
"""Step over a seam between tiles, in usual steps."""
_ERRORS = 4
"""Standard errors of a middle that may be noise."""
_FEW = 3
"""Fewest middles through which a straight line is proof of something."""


def spans_of(places: np.ndarray, full: np.ndarray, widths: np.ndarray, length: int) -> tuple[np.ndarray, float]:
    """Start and end along the last axis, from middles `(others, n)`, and the width of a cell."""
    n = places.shape[1]
    seen = np.asarray(full.any(axis=0))
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
    for part, most in ((seen, 0.0), (_without(seen, -1), 0.0), (_without(seen, 0), 0.0), (seen, _LENIENT)):
        slope, start = np.polyfit(index[part], middles[part], 1, w=weight[part])
        off = np.abs(middles[part] - start - slope * index[part]).max()
        within = max(_SEAM * slope, _ERRORS * noise)
        if slope > 0 and (off < within or (off < most * slope and not _has_seams(middles[part], slope))):
            edges = start + slope * (np.arange(n + 1) - 0.5)
            edges = _snapped(edges, max(_NEAR * slope, _ERRORS * noise), length)
            return np.stack([edges[:-1], edges[1:]], axis=1), float(slope)
    if not (seen.all() and _has_seams(middles, float(slope))):
        raise NotFoundError("The cells of a grid stand at uneven steps that are no seams between tiles.")
    width = float(np.median(np.diff(middles)))
    return np.stack([middles - width / 2, middles + width / 2], axis=1), width


def _has_seams(middles: np.ndarray, pitch: float) -> bool:
    """Whether most steps from cell to cell are alike and a few are longer."""
    steps = np.diff(middles) / pitch
    usual = steps[steps < _LONG_STEP * np.median(steps)]
    return len(usual) < len(steps) and float(usual.std()) < _EVEN


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
