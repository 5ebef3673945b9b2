"""Small pictures, as files and as pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
TURNED = {
    1: [[RED, GREEN, BLUE], [WHITE, BLACK, RED]],
    2: [[BLUE, GREEN, RED], [RED, BLACK, WHITE]],
    3: [[RED, BLACK, WHITE], [BLUE, GREEN, RED]],
    4: [[WHITE, BLACK, RED], [RED, GREEN, BLUE]],
    5: [[RED, WHITE], [GREEN, BLACK], [BLUE, RED]],
    6: [[WHITE, RED], [BLACK, GREEN], [RED, BLUE]],
    7: [[RED, BLUE], [BLACK, GREEN], [WHITE, RED]],
    8: [[BLUE, RED], [GREEN, BLACK], [RED, WHITE]],
}
"""Pixels of `corner_image` turned upright, by its orientation in EXIF."""


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
