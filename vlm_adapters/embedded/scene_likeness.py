"""Whether an image looks like the synthetic scenes that embedded models are trained on, from its pixels alone.

A scene shows shapes of a few strong colours over muted ones. Brightness varies, by noise, texture and shade; the
difference from grey hardly does. So of a scene some of the image has the colours of shapes, in patches, and nearly
nothing but the edges of shapes has colours that are neither theirs nor muted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SHAPE_COLOURS = ((214, 40, 40), (44, 160, 60), (38, 84, 214), (245, 205, 40), (126, 44, 160), (250, 130, 190))
"""Mean RGB values of the shapes in the data sets `scenes` and `hard_scenes`."""

SIDE = 160
"""Longest side in pixels of the image that is looked at; a larger one is averaged down."""

LEAST_SHAPES, MOST_SHAPES = 0.02, 0.6
"""Share of the image that has the colours of shapes."""

MOST_OTHERS = 0.08
"""Share that has neither the colours of shapes nor muted ones: the edges of shapes."""

MOST_EVEN_OTHERS = 0.01
"""Share that has such colours and is no edge."""

LEAST_EVEN_SHAPES = 0.5
"""Share of what has the colours of shapes that is no edge."""

_NEAR, _NEAR_GREY, _EVEN = 24.0, 42.0, 8.0
_SHADE = 45.0


def looks_like_scene(image: Image.Image) -> bool:
    """Whether an RGB image looks like a synthetic scene of coloured shapes."""
    shapes, others, even = _parts(image)
    share = shapes.mean()
    return bool(
        LEAST_SHAPES <= share <= MOST_SHAPES
        and others.mean() <= MOST_OTHERS
        and (others & even).mean() <= MOST_EVEN_OTHERS
        and (shapes & even).mean() >= LEAST_EVEN_SHAPES * share
    )


def _parts(image: Image.Image) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Find where an image has the colours of shapes, where neither these nor muted ones, and where it is no edge."""
    small = image.reduce(max(1, max(image.size) // SIDE)).filter(ImageFilter.BoxBlur(1))
    pixels = np.asarray(small, np.float32)
    brightness = pixels.mean(-1)
    tint = pixels - brightness[..., None]
    known = np.asarray(SHAPE_COLOURS, np.float32)
    tints = known - known.mean(1, keepdims=True)
    shapes = np.zeros(brightness.shape, np.bool_)
    for of_shape, shade in zip(tints, known.mean(1), strict=True):
        shapes |= (np.abs(tint - of_shape).max(-1) <= _NEAR) & (np.abs(brightness - shade) <= _SHADE)
    others = ~shapes & (np.abs(tint).max(-1) > _NEAR_GREY)
    return shapes, others, ~_edges(tint)


def _edges(tint: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the difference from grey changes between neighbours."""
    edges = np.zeros(tint.shape[:2], np.bool_)
    across = np.abs(np.diff(tint, axis=1)).max(-1) > _EVEN
    down = np.abs(np.diff(tint, axis=0)).max(-1) > _EVEN
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges
