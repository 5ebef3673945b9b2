"""Maps and masks drawn over an image."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.data.files import whole_file
from vlm_adapters.grounding.result import Grounding

Colour = tuple[int, int, int]

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which is lost on white; then
# three of Paul Tol's for sentences with more phrases.
PALETTE: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (51, 34, 136),
    (136, 34, 85),
    (130, 130, 20),
)
# Dark violet over red to light yellow; brightness rises with the value, as in matplotlib's inferno.
_HEAT = np.array([(12, 7, 40), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32)

INK: Colour = (30, 30, 30)
"""Colour of text and of true outlines."""

PAPER: Colour = (255, 255, 255)
"""Colour of the background."""


def colour_of(index: int) -> Colour:
    """The colour of the phrase with this index; colours repeat."""
    return PALETTE[index % len(PALETTE)]


def heat_overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Draw a heat map over an image.

    Args:
        image: RGB image of `H x W` pixels.
        heat: `(H, W)` in [0, 1].
    """
    position = np.clip(heat, 0, 1) * (len(_HEAT) - 1)
    below = np.minimum(position.astype(int), len(_HEAT) - 2)
    share = (position - below)[..., None]
    colours = _HEAT[below] * (1 - share) + _HEAT[below + 1] * share
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray((0.3 * grey + 0.7 * colours).astype(np.uint8))


def mask_overlay(
    image: Image.Image,
    masks: Sequence[NDArray[np.bool_]],
    colours: Sequence[Colour],
    truth: Sequence[NDArray[np.bool_]] = (),
) -> Image.Image:
    """Draw masks over an image in pale grey, so that the only colours are those of the masks.

    Args:
        image: RGB image of `H x W` pixels.
        masks: `(H, W)` bool each.
        colours: The colour of each mask, which fills it and outlines it.
        truth: True masks `(H, W)`, where known: their outlines are drawn in black on white.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    pixels = _masked(grey, 0.6 * grey + 0.4 * 255, masks, colours)
    line = max(1, min(image.size) // 120)
    for mask in truth:
        pixels[_outline(mask, 2 * line)] = PAPER
        pixels[_outline(mask, line)] = INK
    return Image.fromarray(pixels.astype(np.uint8))


def grounding_overlay(grounding: Grounding) -> Image.Image:
    """Draw the mask of every phrase in its colour over the image in its own colours and size."""
    masks = [grounded.mask for grounded in grounding.phrases]
    image = np.asarray(grounding.image, dtype=np.float32)
    pixels = _masked(image, image.copy(), masks, [colour_of(index) for index in range(len(masks))])
    return Image.fromarray(pixels.astype(np.uint8))


def write_png(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write an image as PNG, creating its folder."""
    with whole_file(path) as temporary:
        image.save(temporary, "PNG")


def _masked(
    inside: NDArray[np.float32],
    outside: NDArray[np.float32],
    masks: Sequence[NDArray[np.bool_]],
    colours: Sequence[Colour],
) -> NDArray[np.float32]:
    """Draw masks into `outside (H, W, 3)`: filled with a mixture of `inside` and their colour, and outlined in it."""
    line = max(1, min(inside.shape[:2]) // 120)
    for mask, colour in zip(masks, colours, strict=True):
        outside[mask] = 0.45 * inside[mask] + 0.55 * np.array(colour, dtype=np.float32)
        outside[_outline(mask, line)] = colour
    return outside


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inner
    outline: NDArray[np.bool_] = mask & ~inner
    return outline
