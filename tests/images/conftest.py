"""Small pictures, as files and as pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def corner_image() -> Image.Image:
    """3 wide, 2 high: red, green, blue / white, black, red. No turn or flip leaves it as it is."""
    return Image.fromarray(np.array([[RED, GREEN, BLUE], [WHITE, BLACK, RED]], np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(value: float) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def rows(image: Image.Image) -> list[list[tuple[int, ...]]]:
    return [[tuple(pixel) for pixel in row] for row in np.asarray(image).tolist()]


def noise(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
