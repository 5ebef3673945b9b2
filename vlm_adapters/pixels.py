"""Pixels of arrays and tensors, of any type for which there is a rule, as bytes: 0 is black and 255 is white."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from vlm_adapters.errors import ImageError

BYTE, _WORD = 255, 65535
"""White in 8 and in 16 bits."""

_CHANNELS = (1, 3, 4)
_STRIP = 1_000_000


def is_tensor(source: object) -> TypeGuard[Any]:
    """Whether this is a tensor of torch, which is not imported for the question."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def array_and_name(source: Any) -> tuple[npt.NDArray[Any], str]:
    """Take an image out of an array or a tensor of torch: an array with its channels last, and the words that name it.

    Args:
        source: An array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W), on any device.

    Raises:
        ImageError: It has another shape.
    """
    shape = tuple(source.shape)
    first = is_tensor(source)
    what = f"The {'tensor' if first else 'array'} of shape {shape} and type {source.dtype}"
    if len(shape) not in {2, 3} or (len(shape) == 3 and shape[0 if first else 2] not in _CHANNELS):
        forms = "(1, H, W), (3, H, W) or (4, H, W)" if first else "(H, W, 1), (H, W, 3) or (H, W, 4)"
        remedy = "last needs tensor.permute(2, 0, 1)" if first else "first needs array.transpose(1, 2, 0)"
        raise ImageError(f"{what} is not an image. Give (H, W), {forms}; one with its channels {remedy}.")
    if not first:
        return np.asarray(source), what
    values = source.detach().cpu()
    array: npt.NDArray[Any] = (values.float() if values.is_floating_point() else values).numpy()
    return (array if array.ndim == 2 else array.transpose(1, 2, 0)), what


def bytes_of_array(values: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    """Convert the values of an array, by the rules of `load_image` for its type."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return scaled(values, 1)
    if values.dtype.kind == "u" and values.dtype.itemsize == np.dtype(np.uint16).itemsize:
        return scaled(values, integer_white(values, what))
    if values.dtype.kind != "f":
        raise ImageError(f"{what} has no rule for its type. Give bool, uint8, uint16 or floats in [0, 1].")
    low, high = _finite_range(values, what)
    if low < 0 or high > 1:
        raise ImageError(
            f"{what} has values from {low:g} to {high:g}, and floats must lie in [0, 1]. Divide by the value of white, "
            "undo a normalisation by mean and deviation, or give uint8."
        )
    return scaled(values, 1)


def scaled(values: npt.NDArray[Any], white: int) -> npt.NDArray[np.uint8]:
    """Scale values in [0, white] to [0, 255], rounded to the nearest."""
    found = np.empty(values.shape, np.uint8)
    for top, bottom in strips(len(values), max(1, values[:1].size)):
        floats: npt.NDArray[np.float32] = values[top:bottom].astype(np.float32) * np.float32(BYTE / white)
        found[top:bottom] = np.rint(floats)
    return found


def strips(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Divide the rows of a large image into strips of about a million pixels, for work that takes memory."""
    height = max(1, _STRIP // columns)
    return ((top, min(rows, top + height)) for top in range(0, rows, height))


def integer_white(values: npt.NDArray[Any], what: str) -> int:
    """The value of white among integers: 255 if none is above it, else 65535."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _WORD:
        raise ImageError(f"{what} has values from {low} to {high}, not in [0, {_WORD}]. Scale them to 8 or 16 bits.")
    return BYTE if high <= BYTE else _WORD


def float_white(values: npt.NDArray[Any], what: str) -> int:
    """The value of white among the floats of a PIL image: 1 if none is above it, else 255."""
    low, high = _finite_range(values, what)
    if low < 0 or high > BYTE or 1 < high < 2:
        raise ImageError(
            f"{what} has values from {low:g} to {high:g}. Floats must lie in [0, 1], or in [0, 255] with one of 2 or "
            "more: clip or scale them."
        )
    return 1 if high <= 1 else BYTE


def _finite_range(values: npt.NDArray[Any], what: str) -> tuple[float, float]:
    if not np.isfinite(values).all():
        raise ImageError(
            f"{what} has values that are not finite (NaN or infinity). Replace them, as with numpy.nan_to_num."
        )
    return float(values.min()), float(values.max())
