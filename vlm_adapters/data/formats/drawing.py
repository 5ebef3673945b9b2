"""How synthetic scenes are drawn: outlines of shapes, soft edges, and muted backgrounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SUPERSAMPLING = 4


def paint(canvas: NDArray[np.float32], cover: NDArray[np.float32], colour: NDArray[np.generic]) -> None:
    """Lay a colour, `(3,)` or one per pixel `(h, w, 3)`, over a canvas `(h, w, 3)` by how much of each it covers."""
    canvas += cover[..., None] * (colour.astype(np.float32) - canvas)


def coverage(
    corners: Sequence[tuple[float, float]], centre: tuple[float, float], radius: float, size: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """Compute how much of each pixel around `centre` a shape covers, 0 to 1, and the window of these pixels."""
    left, top = (max(0, math.floor(middle - radius) - 1) for middle in centre)
    right, bottom = (math.ceil(middle + radius) + 1 for middle in centre)
    right, bottom = min(right, size[1]), min(bottom, size[0])
    stamp = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    points = [
        ((centre[0] - left + radius * x) * SUPERSAMPLING, (centre[1] - top + radius * y) * SUPERSAMPLING)
        for x, y in corners
    ]
    ImageDraw.Draw(stamp).polygon(points, fill=255)
    cover = np.asarray(stamp.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)
    return cover, (slice(top, bottom), slice(left, right))


def outline(shape: str, angle: float) -> list[tuple[float, float]]:
    """Compute the corners of a shape within the unit circle, turned by `angle`."""
    if shape == "star":
        polar = [(1.0 if k % 2 == 0 else 0.48, k * math.pi / 5) for k in range(10)]
    elif shape == "cross":
        arm = 0.4
        corner, notch = math.atan(arm), (math.hypot(1, arm) ** -1) * arm * math.sqrt(2)
        polar = [
            (length, k * math.pi / 2 + turn)
            for k in range(4)
            for length, turn in ((1.0, -corner), (1.0, corner), (notch, math.pi / 4))
        ]
    else:
        corners = {"circle": 48, "square": 4, "triangle": 3}[shape]
        polar = [(1.0, k * 2 * math.pi / corners) for k in range(corners)]
    return [(length * math.cos(turn + angle), length * math.sin(turn + angle)) for length, turn in polar]


def background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """Draw a gradient, stripes or blocks of two muted colours, `(H, W, 3)`."""
    low, high = (_muted(rng).astype(np.float32) for _ in range(2))
    y, x = (axis.astype(np.float32) / min(width, height) for axis in np.ogrid[0:height, 0:width])
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = rng.choice(["gradient", "stripes", "blocks"])
    if kind == "gradient":
        blend = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        blend = 0.5 + 0.3 * np.clip(4 * np.sin(along * rng.uniform(15, 60)), -1, 1)
    else:
        cells = rng.random([int(n) for n in rng.integers(4, 16, 2)], dtype=np.float32)
        row = (np.arange(height) * cells.shape[0] // height)[:, None]
        blend = cells[row, np.arange(width) * cells.shape[1] // width]
    return np.asarray(low + blend[..., None] * (high - low), dtype=np.float32)


def _muted(rng: np.random.Generator) -> NDArray[np.float64]:
    """Choose a colour with little saturation, so that no background passes for a shape."""
    return np.asarray(rng.uniform(40, 225) + rng.uniform(-28, 28, 3))
