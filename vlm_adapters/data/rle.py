"""Masks as COCO's compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.errors import DataError


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, object]:
    """Encode a mask as COCO's compressed run lengths, bit-equal to pycocotools.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `{"size": [H, W], "counts": str}`, safe for JSON.
    """
    flat = np.asfortranarray(mask).ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat, prepend=0)) if flat.size else np.zeros(0, np.int64)
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
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
    return {"size": list(mask.shape), "counts": "".join(letters)}


def decode_rle(rle: Mapping[str, object]) -> NDArray[np.bool_]:
    """Decode COCO's compressed run lengths into a `(H, W)` bool mask.

    Raises:
        DataError: The run lengths do not fill the image, or are malformed.
    """
    size, text = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise DataError(f"A COCO mask needs size [H, W] in pixels, got {size!r}.")
    if not (isinstance(text, str) and all(48 <= ord(letter) < 112 for letter in text)):
        raise DataError("A COCO mask needs its run lengths in counts, a string of the letters '0' to 'o'.")
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    height, width = size
    if min(height, width, *counts) < 0 or shift or sum(counts) != height * width:
        raise DataError(f"The run lengths of a COCO mask cover {sum(counts)} of {height} x {width} pixels.")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")
