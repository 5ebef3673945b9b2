"""Filled polygons as OpenCV 4 draws them: with the pixels of their outline, and the parity of crossings within."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ONE = 1 << 16
"""One pixel in the fixed-point numbers with which OpenCV follows an edge from row to row."""

Points = NDArray[np.int64]


def fill_polygon(points: Points, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a polygon as `cv2.polylines` and `cv2.fillPoly` of OpenCV 4.8 do, one over the other.

    Pixels are those of OpenCV where all points lie in the image. Beyond it, lines are cut where they leave it; OpenCV
    first moves their ends to its border.

    Args:
        points: `(N, 2)`: x and y in whole pixels. The work grows with the length of the outline.
        size: `(H, W)` of the mask.
    """
    mask = np.zeros(size, np.bool_)
    before = np.roll(points, 1, axis=0)
    _draw_lines(mask, before, points)
    return mask | _inside(before, points, size)


def outline_steps(points: Points) -> int:
    """Count the pixels that a polygon's outline is drawn with, one by one."""
    return int((np.abs(points - np.roll(points, 1, axis=0)).max(axis=1, initial=0) + 1).sum())


def _draw_lines(mask: NDArray[np.bool_], starts: Points, ends: Points) -> None:
    """Draw lines by Bresenham's algorithm from left to right, which decides where a pixel is halfway."""
    is_leftward = (ends[:, 0] < starts[:, 0])[:, None]
    starts, ends = np.where(is_leftward, ends, starts), np.where(is_leftward, starts, ends)
    across, down = (ends - starts).T
    is_steep = np.abs(down) > across
    longer, shorter = np.maximum(across, np.abs(down)), np.minimum(across, np.abs(down))
    line, step = _counted(longer + 1)
    most = np.maximum(longer, 1)[line]
    aside = (2 * shorter[line] * step + most - 1) // (2 * most)
    x = starts[line, 0] + np.where(is_steep[line], aside, step)
    y = starts[line, 1] + np.where(down < 0, -1, 1)[line] * np.where(is_steep[line], step, aside)
    is_seen = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    mask[y[is_seen], x[is_seen]] = True


def _inside(starts: Points, ends: Points, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill every row between its first and second crossing, its third and fourth, and so on."""
    is_upward = (ends[:, 1] < starts[:, 1])[:, None]
    tops, bottoms = np.where(is_upward, ends, starts), np.where(is_upward, starts, ends)
    rows = bottoms[:, 1] - tops[:, 1]
    tops, bottoms, rows = tops[rows > 0], bottoms[rows > 0], rows[rows > 0]
    across = (bottoms[:, 0] - tops[:, 0]) * _ONE
    slopes = np.sign(across) * (np.abs(across) // rows)  # as C divides: towards zero
    edge, step = _counted(rows)
    x, y = tops[edge, 0] * _ONE + slopes[edge] * step, tops[edge, 1] + step
    order = np.lexsort((x, y))
    pairs = np.clip(((x[order] + _ONE // 2) >> 16).reshape(-1, 2) + (0, 1), 0, size[1])  # noqa: RUF005 - a sum
    row = y[order][::2]
    is_seen = (row >= 0) & (row < size[0]) & (pairs[:, 1] > pairs[:, 0])
    # +1 where a stretch begins and -1 after its end; sums may wrap around on the way and are right at the end
    changes = np.zeros((size[0], size[1] + 1), np.int8)
    np.add.at(changes, (row[is_seen], pairs[is_seen, 0]), 1)
    np.add.at(changes, (row[is_seen], pairs[is_seen, 1]), -1)
    return np.cumsum(changes[:, :-1], axis=1, dtype=np.int8) > 0


def _counted(lengths: Points) -> tuple[Points, Points]:
    """For every step of every line, the line's index and the step's number from 0."""
    line = np.repeat(np.arange(len(lengths)), lengths)
    return line, np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
