"""PNG files of large images in the time of a copy, and in the memory of a band of rows.

PIL weighs five filters for every row and searches for repetitions at its default level: ten times as long, for files
that are a tenth smaller.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS_AND_COLOURS = {"1": (1, 0), "L": (8, 0), "P": (8, 3), "RGB": (8, 2)}
_FILTER_UP = 2
_ROWS_AT_ONCE = 512


def save_png(image: Image.Image, path: Path) -> None:
    """Write an image of mode `1`, `L`, `P` or `RGB`: each row as what it adds to the one above, compressed by runs."""
    header = struct.pack(">IIBBBBB", *image.size, *_BITS_AND_COLOURS[image.mode], 0, 0, 0)
    with path.open("wb") as file:
        file.write(_SIGNATURE + _chunk(b"IHDR", header))
        if palette := image.getpalette():
            file.write(_chunk(b"PLTE", bytes(palette)))
        compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
        for rows in _filtered(image):
            if data := compressor.compress(rows):
                file.write(_chunk(b"IDAT", data))
        file.write(_chunk(b"IDAT", compressor.flush()))
        file.write(_chunk(b"IEND", b""))


def _filtered(image: Image.Image) -> Iterator[bytes]:
    """Yield bands of rows, each row after the number of its filter."""
    above: NDArray[np.uint8] | np.uint8 = np.uint8(0)
    for top in range(0, image.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, image.height)
        content = image.crop((0, top, image.width, bottom)).tobytes()
        rows = np.frombuffer(content, np.uint8).reshape(bottom - top, -1)
        band = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        band[:, 0] = _FILTER_UP
        np.subtract(rows[0], above, out=band[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=band[1:, 1:])
        above = rows[-1]
        yield band.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
