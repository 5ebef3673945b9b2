"""Boxes and ellipses as masks: a pixel is inside if its centre is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown


def box_mask(box: Sequence[float], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a box. What reaches out of the image is cut off.

    Args:
        box: `(x0, y0, x1, y1)` in pixels: its left, top, right and bottom edge. In whole numbers, x1 and
            y1 are the first column and row outside.
        size: `(H, W)` of the image.

    Raises:
        DataError: The box has no area, a number is not finite, or it lies outside the image.
    """
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)) or x0 >= x1 or y0 >= y1:
        raise DataError(f"the box {shown(list(box))} has no area. Give x0 < x1 and y0 < y1, in pixels.")
    if x1 <= 0 or y1 <= 0 or x0 >= size[1] or y0 >= size[0]:
        raise DataError(
            f"the box {shown(list(box))} lies outside the image of {size[0]} x {size[1]} pixels (height x width)."
        )
    rows, columns = centres(size)
    return (y0 <= rows) & (rows < y1) & (x0 <= columns) & (columns < x1)


def ellipse_mask(centre: tuple[float, float], radii: tuple[float, float], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill an ellipse whose axes are those of the image. What reaches out of the image is cut off.

    Args:
        centre: `(x, y)` in pixels.
        radii: Half its width and half its height in pixels; equal ones make a circle.
        size: `(H, W)` of the image.

    Raises:
        DataError: A radius is not above 0, or a number is not finite.
    """
    if not all(map(math.isfinite, (*centre, *radii))) or min(radii) <= 0:
        raise DataError(f"the ellipse at {shown(list(centre))} with radii {shown(list(radii))} has no area.")
    rows, columns = centres(size)
    return ((columns - centre[0]) / radii[0]) ** 2 + ((rows - centre[1]) / radii[1]) ** 2 <= 1


def centres(size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The middle of every row `(H, 1)` and of every column `(1, W)` in pixels."""
    rows, columns = (np.arange(side, dtype=np.float64) + 0.5 for side in size)
    return rows[:, None], columns[None, :]
