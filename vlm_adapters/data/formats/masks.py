"""COCO's masks: polygons, and run lengths that are compressed or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.rle import decode_rle, fill_runs
from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown

FARTHEST = 10
"""How many sides of its image a point of a polygon may lie outside."""


def mask_of(segmentation: object, size: tuple[int, int], limits: Limits = DEFAULT_LIMITS) -> NDArray[np.bool_]:
    """Rasterise COCO's polygons or decode its run lengths, compressed or not, as a `(H, W)` mask.

    Args:
        segmentation: A list of polygons `[x, y, x, y, ...]` in pixels, `{"size": [H, W], "counts": ...}`, or a list of
            such run lengths, whose union it is.
        size: `(H, W)` of the image.
        limits: Longest outline, largest mask and longest run lengths that are read.

    Raises:
        DataError: It is malformed, its size differs, or it is beyond the limits.
    """
    if isinstance(segmentation, Mapping):
        return _decoded(segmentation, size, limits)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"it is {shown(segmentation)}, neither polygons nor run lengths.")
    if all(isinstance(part, Mapping) for part in segmentation):
        _check_cost(len(segmentation), size, limits)
        mask = np.zeros(size, np.bool_)
        for part in segmentation:
            mask |= _decoded(part, size, limits)
        return mask
    count = len(segmentation)
    drawn = [index for index, part in enumerate(segmentation) if not _is_without_area(part)] or range(count)
    polygons = [
        _points(segmentation[index], f" (part {index + 1} of {count})" if count > 1 else "", size) for index in drawn
    ]
    if (length := sum(map(_length, polygons))) > limits.max_outline:
        raise DataError(
            f"the outline of its polygons is {length:,.0f} pixels long; at most {limits.max_outline:,} are drawn. "
            "Simplify it, or pass Limits(max_outline=...) to open_dataset."
        )
    coder = _pycocotools()
    try:
        merged = coder.merge(coder.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size))
        text = merged["counts"].decode()
    except Exception as error:  # its C code raises errors of every kind
        raise DataError(f"pycocotools cannot draw its polygons ({type(error).__name__}: {error}).") from error
    return decode_rle({"size": list(size), "counts": text}, limits)


def outline_length(segmentation: object) -> float:
    """The length in pixels of the outline of polygons that `mask_of` has drawn; 0 for run lengths."""
    if not isinstance(segmentation, list):
        return 0
    return sum(_length(np.reshape(part, (-1, 2))) for part in segmentation if isinstance(part, list) and part)


def _check_cost(parts: int, size: tuple[int, int], limits: Limits) -> None:
    if parts * math.prod(size) > 4 * limits.max_mask_pixels:
        raise DataError(f"it has {parts:,} parts of {size[0]} x {size[1]} pixels, too many to read.")


def _decoded(rle: Mapping[str, object], size: tuple[int, int], limits: Limits) -> NDArray[np.bool_]:
    if rle.get("size") != list(size):
        raise DataError(f"its size is {shown(rle.get('size'))}, and the image is {list(size)} (height, width).")
    counts = rle.get("counts")
    if not isinstance(counts, list):
        return decode_rle({"size": list(size), "counts": counts}, limits)
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != math.prod(size):
        raise DataError(f"its run lengths do not cover the {size[0]} x {size[1]} pixels of the image.")
    return fill_runs(np.array(counts, np.int64), size)


def _is_without_area(polygon: object) -> bool:
    """Whether a polygon is of two points or fewer, of which pycocotools makes no pixel."""
    return isinstance(polygon, list) and len(polygon) in (0, 2, 4) and all(map(_is_coordinate, polygon))


def _is_coordinate(value: object) -> bool:
    # a bool is an int, NaN and infinity are floats, and an int may be longer than any float
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]


def _points(polygon: object, part: str, size: tuple[int, int]) -> NDArray[np.float64]:
    """Check a polygon, and return its points `(N, 2)`."""
    if not isinstance(polygon, list) or not all(map(_is_coordinate, polygon)) or len(polygon) < 6 or len(polygon) % 2:
        raise DataError(f"the polygon {shown(polygon)} is not a list of three or more points x, y{part}.")
    if max(map(abs, polygon)) > FARTHEST * max(size):
        raise DataError(
            f"the polygon {shown(polygon)} lies far outside the image of {size[0]} x {size[1]} pixels{part}."
        )
    return np.array(polygon, np.float64).reshape(-1, 2)


def _length(points: NDArray[np.float64]) -> float:
    """The steps that pycocotools takes along the closed outline, each of which costs it time and memory."""
    return float((np.abs(points - np.roll(points, 1, axis=0)).max(axis=1) + 1).sum())


def _pycocotools() -> Any:
    try:
        from pycocotools import mask  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise DataError(
            'Polygons need pycocotools, which is not installed. Install it with pip install "vlm-adapters[data]".'
        ) from error
    return mask
