"""Masks as PNG files: a pixel is inside the mask if it is neither black nor transparent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown
from vlm_adapters.reading import CountedBytes

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_mask_png(content: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a mask `(H, W)` from the bytes of a PNG file of any mode.

    Unlike `load_image`, it keeps the smallest values: a pixel of 1 in 16 bits is inside. The file is taken as it is
    stored; an EXIF orientation is not applied.

    Args:
        content: The bytes.
        size: `(H, W)` that it must have; it is compared before anything is decoded.

    Raises:
        DataError: It is not a PNG, of another size, or damaged.
    """
    if not content.startswith(_SIGNATURE):
        raise DataError("it is not a PNG. Save masks as PNG, which keeps every pixel as it is.")
    file = CountedBytes(content)
    with _pil_errors():
        image = PngImageFile(file)
    check_mask_size((image.height, image.width), size)
    with _pil_errors():
        file.allow_decoding()
        image.load()
        return inside_of(image)


def check_mask_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    """Compare the size `(H, W)` of a mask with that of its image.

    Raises:
        DataError: They differ.
    """
    if found != size:
        raise DataError(
            f"it is {shown(found[0])} x {shown(found[1])}, and the image is {size[0]} x {size[1]} (height x width). "
            "Give masks of the upright image."
        )


@contextmanager
def _pil_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # PIL's readers raise errors of every kind on damaged files
        raise DataError(f"it is a damaged PNG: {shown(str(error) or type(error).__name__)[1:-1]}.") from error


def inside_of(image: Image.Image) -> NDArray[np.bool_]:
    """Read a decoded image as a mask `(H, W)`: true where it is neither black nor transparent."""
    if image.mode.startswith("I"):  # grey of 16 bits
        return np.asarray(image, np.uint16) > 0
    red, green, blue, alpha = np.moveaxis(np.asarray(image.convert("RGBA"), np.uint8), -1, 0)
    inside: NDArray[np.bool_] = (red | green | blue > 0) & (alpha > 0)
    return inside
