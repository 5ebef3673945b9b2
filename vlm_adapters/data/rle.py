"""Masks as COCO's compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown

_MOST_LETTERS = 12
"""Most letters of one run length: 60 bits, far above the pixels of any image."""

_NOT_LETTERS = "A COCO mask needs its run lengths in counts, a string of the letters '0' to 'o'."


def encode_rle(
    mask: NDArray[np.bool_], size: tuple[int, int] | None = None, corner: tuple[int, int] = (0, 0)
) -> dict[str, object]:
    """Encode a mask as COCO's compressed run lengths, bit-equal to pycocotools.

    Args:
        mask: `(H, W)` bool, or a rectangle of the image beyond which the mask is false.
        size: `(H, W)` of the image; None where the rectangle is all of it.
        corner: `(left, top)` of the rectangle, in pixels of the image.

    Returns:
        `{"size": [H, W], "counts": str}`, safe for JSON.
    """
    height, width = size or (mask.shape[0], mask.shape[1])
    left, top = corner
    columns = mask
    if mask.shape[0] < height:  # runs go on from column to column, so columns have to be whole
        columns = np.zeros((height, mask.shape[1]), np.bool_)
        columns[top : top + len(mask)] = mask
    changes = left * height + _changes(columns)
    if columns.size and columns[-1, -1]:
        changes = np.append(changes, (left + mask.shape[1]) * height)
    counts = np.diff(np.concatenate([[0], changes[changes < height * width], [height * width]]))
    letters = []
    for index, count in enumerate(counts.tolist()):
        # From the fourth run on COCO stores the difference to the run two before, 5 bits a letter, sign extended.
        value = count - int(counts[index - 2]) if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            letters.append(chr((bits | 0x20 if more else bits) + 48))
    return {"size": [height, width], "counts": "".join(letters)}


def decode_rle(rle: Mapping[str, object], limits: Limits = DEFAULT_LIMITS) -> NDArray[np.bool_]:
    """Decode COCO's compressed run lengths into a `(H, W)` bool mask.

    Args:
        rle: `{"size": [H, W], "counts": str}`.
        limits: Largest mask and longest run lengths that are decoded.

    Raises:
        DataError: The run lengths do not fill the image, are malformed, or are beyond the limits.
    """
    size, text = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int for side in size)):
        raise DataError(f"A COCO mask needs size [H, W] in pixels, got {shown(size)}.")
    height, width = size
    if height * width > limits.max_pixels:
        raise DataError(f"A COCO mask of {shown(size)} (H, W) has more than {limits.max_pixels:,} pixels.")
    if not (isinstance(text, str) and text.isascii()):
        raise DataError(_NOT_LETTERS)
    if len(text) > limits.max_run_letters:
        raise DataError(f"The run lengths of a COCO mask have {len(text):,} letters, over {limits.max_run_letters:,}.")
    counts = _run_lengths(text, height, width)
    covered = int(counts.sum())
    if min(height, width, int(counts.min(initial=0))) < 0 or covered != height * width:
        raise DataError(f"The run lengths of a COCO mask cover {covered} of {height} x {width} pixels.")
    return fill_runs(counts, (height, width))


def _changes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where a mask differs from the pixel before, counted by columns; before the first it is False.

    Masks lie in memory by rows: few changes are sorted faster than many pixels are brought into another order.
    """
    height, width = mask.shape
    if not mask.size:
        return np.zeros(0, np.int64)
    above = np.concatenate([[False], mask[-1, :-1]])  # the last pixel of the column before
    first = np.flatnonzero(mask[0] != above) * height
    places = np.flatnonzero(mask[1:] != mask[:-1])
    return np.sort(np.concatenate([first, places % width * height + places // width + 1]))


def fill_runs(counts: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a mask `(H, W)` by columns with runs of False and True in turn; their sum is `H x W`."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")


def _run_lengths(text: str, height: int, width: int) -> NDArray[np.int64]:
    letters = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if letters.size and (letters.min() < 0 or letters.max() >= 64):
        raise DataError(_NOT_LETTERS)
    ends = np.flatnonzero(letters & 0x20 == 0) + 1
    lengths = np.diff(ends, prepend=0)
    pixels = height * width
    if letters.size and (not ends.size or ends[-1] != letters.size or lengths.max() > _MOST_LETTERS):
        raise DataError(f"The run lengths of a COCO mask of {height} x {width} pixels are malformed.")
    if not letters.size:
        return np.zeros(0, np.int64)
    shifts = 5 * (np.arange(letters.size) - np.repeat(ends - lengths, lengths))
    values = np.add.reduceat((letters & 0x1F) << shifts, ends - lengths)
    values -= np.where(letters[ends - 1] & 0x10, np.int64(1) << 5 * lengths, 0)
    if np.abs(values).max() > abs(pixels):
        raise DataError(f"A run length of a COCO mask is longer than its {height} x {width} pixels.")
    # from the fourth run on COCO stores the difference to the run two before
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
