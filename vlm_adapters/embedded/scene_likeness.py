"""Whether an image looks like the synthetic scenes that embedded models are trained on, from its pixels alone.

A scene has shapes in a few strong colours, some of them striped or shaded, over a background that blends two muted
colours. So its background lies on a line through the space of colours, where that of a photograph lies all over it,
and of the rest nearly all is near the colours of shapes, but for the edges between them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SHAPE_COLOURS = ((214, 40, 40), (44, 160, 60), (38, 84, 214), (245, 205, 40), (126, 44, 160), (250, 130, 190))
"""Mean RGB values of shapes in the data sets `scenes` and `hard_scenes`."""

SIDE = 160
"""Longest side in pixels of the image that is looked at; a larger one is averaged down."""

SHAPES = (0.01, 0.6)
"""Least and most of the image that may have the colours of shapes."""

EVEN_SHAPES = (0.08, 0.93)
"""Least and most of that which may be no edge: noise has none, a blur nothing but it."""

MOST_EDGES = 0.7
"""Most of the image that may be edges."""

MOST_STRANGE, MOST_EVEN_STRANGE = 0.07, 0.003
"""Most of the image that may have neither colours of shapes nor muted ones, and most of it that may be no edge."""

MOST_OFF_LINE, MOST_OFF_LINE_OF_EVEN = 0.5, 0.23
"""Most of the muted pixels that may lie off a line through the space of colours, in all and beyond edges."""

MOST_EXTREME, MOST_PLAIN = 0.05, 0.6
"""Most of the muted pixels that may be white or black, and that may have one and the same colour."""

_LEVELS, _STEP = 64, 4
_SPREAD, _REACH, _LINE, _CHANGE = 62, 26, 5.0, 8
_BLACK, _WHITE = 10, 252
_SAMPLE, _LINES = 300, 60


def looks_like_scene(image: Image.Image) -> bool:
    """Whether an RGB image looks like a synthetic scene of coloured shapes."""
    small = image.reduce(-(-max(image.size) // SIDE)).filter(ImageFilter.BoxBlur(1))
    pixels = np.asarray(small)
    red, green, blue = np.moveaxis(pixels // _STEP, -1, 0)
    kinds = _kinds()[red, green, blue]
    edges = _edges(pixels)
    shapes, strange = kinds == 1, kinds == 2
    even = (shapes & ~edges).sum() / max(shapes.sum(), 1)
    return bool(
        SHAPES[0] <= shapes.mean() <= SHAPES[1]
        and EVEN_SHAPES[0] <= even <= EVEN_SHAPES[1]
        and edges.mean() <= MOST_EDGES
        and strange.mean() <= MOST_STRANGE
        and (strange & ~edges).mean() <= MOST_EVEN_STRANGE
        and _is_background(pixels[kinds == 0], min(MOST_OFF_LINE, MOST_OFF_LINE_OF_EVEN + edges.mean()))
    )


@cache
def _kinds() -> NDArray[np.uint8]:
    """By the red, green and blue of a colour in steps: 0 for muted colours, 1 for those of shapes, 2 for others.

    A striped shape is darker in places, a shaded one goes from dark to light.
    """
    blend = np.linspace(0, 1, 9)[:, None, None]
    colours = np.array(SHAPE_COLOURS)
    shaded = 0.4 * colours * blend + (colours + 0.5 * (255 - colours)) * (1 - blend)
    known = np.concatenate([colours, 0.45 * colours, shaded.reshape(-1, 3)])
    levels = np.arange(_LEVELS, dtype=np.float32) * _STEP + (_STEP - 1) / 2
    table = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    of_shapes = np.zeros(table.shape[:-1], np.bool_)
    for colour in known:
        of_shapes |= np.abs(table - colour.astype(np.float32)).max(-1) <= _REACH
    muted = np.ptp(table, axis=-1) <= _SPREAD
    return np.where(muted, 0, np.where(of_shapes, 1, 2)).astype(np.uint8)


def _edges(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the tint changes between neighbours; noise and shade change brightness alone."""
    red, green, blue = np.moveaxis(pixels.astype(np.int16), -1, 0)
    edges = np.zeros(red.shape, np.bool_)
    for tint in (red - green, blue - green):
        across, down = np.abs(np.diff(tint, axis=1)) > _CHANGE, np.abs(np.diff(tint, axis=0)) > _CHANGE
        edges[:, 1:] |= across
        edges[:, :-1] |= across
        edges[1:] |= down
        edges[:-1] |= down
    return edges


def _is_background(muted: NDArray[np.uint8], most_off_line: float) -> bool:
    """Whether muted pixels `(n, 3)` could be the background of a scene, with dots, edges and dark stripes."""
    if not len(muted):
        return False
    rng = np.random.default_rng(0)
    colours = muted[rng.integers(0, len(muted), _SAMPLE)]
    extreme = (colours.min(-1) >= _WHITE) | (colours.max(-1) <= _BLACK)
    plain = np.unique(colours, axis=0, return_counts=True)[1].max()
    if extreme.mean() > MOST_EXTREME or plain > MOST_PLAIN * _SAMPLE:
        return False
    points = colours.astype(np.float32)
    start, end = points[: 2 * _LINES].reshape(2, _LINES, 3)
    along = (end - start) / np.maximum(np.linalg.norm(end - start, axis=-1, keepdims=True), 1e-6)
    away = points[None] - start[:, None]
    squared = (away**2).sum(-1) - np.einsum("lpc,lc->lp", away, along) ** 2
    return bool((squared > _LINE**2).mean(axis=1).min() <= most_off_line)
