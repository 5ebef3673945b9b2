"""Maps and masks drawn over an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.data.files import whole_file
from vlm_adapters.geometry import Size
from vlm_adapters.grounding.result import Grounding, PackedMask
from vlm_adapters.output.png import save_png

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

_LEVELS = np.linspace(0, len(_HEAT) - 1, 2048, dtype=np.float32)
_COLOURS = 0.7 * np.stack([np.interp(_LEVELS, range(len(_HEAT)), part) for part in _HEAT.T], 1).astype(np.float32)

INK: Colour = (30, 30, 30)
"""Colour of text and of true outlines."""

PAPER: Colour = (255, 255, 255)
"""Colour of the background."""

PAINTED_SIDE = 640
"""Longest side at which figures are painted, or that of their panels if it is larger: images are shrunk first."""

_ROWS_AT_ONCE = 512


def colour_of(index: int) -> Colour:
    """The colour of the phrase with this index; colours repeat."""
    return PALETTE[index % len(PALETTE)]


def shrunk(image: Image.Image, side: int = 0) -> Image.Image:
    """The image as figures with panels of `side` pixels are painted on: of a large one, a smaller copy."""
    scale = max(PAINTED_SIDE, side) / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=2.0)


def shrunk_mask(mask: NDArray[np.bool_] | PackedMask, size: Size) -> NDArray[np.bool_]:
    """A mask at the size `(H, W)` of a shrunk image: the pixels of which it covers half or more."""
    if isinstance(mask, PackedMask):
        if mask.size == size:
            return mask.unpacked()
        drawn = mask.image()
    elif mask.shape == size:
        return mask
    else:
        drawn = Image.fromarray(mask)
    cover = drawn.convert("L").resize(size[::-1], Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(cover) >= 128


def shrunk_map(heat: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """A map at the size `(H, W)` of a shrunk image."""
    if heat.shape == size:
        return heat
    return np.asarray(Image.fromarray(heat).resize(size[::-1], Image.Resampling.BOX))


def heat_overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Draw a heat map over an image.

    Args:
        image: RGB image of `H x W` pixels.
        heat: `(H, W)` in [0, 1].
    """
    drawn = np.empty((image.height, image.width, 3), np.uint8)
    greys = np.asarray(image.convert("L"))
    for first in range(0, image.height, _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        levels = (np.clip(heat[rows], 0, 1) * (len(_COLOURS) - 1)).astype(np.uint16)
        mixed = np.take(_COLOURS, levels, axis=0)
        mixed += np.float32(0.3) * greys[rows, :, None]
        drawn[rows] = mixed
    return Image.fromarray(drawn)


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
    grey = image.convert("L")
    drawn = grey.point(_table(0.6, 0.4 * 255)).convert("RGB")
    _draw_masks(drawn, grey.convert("RGB"), map(PackedMask.of, masks), colours)
    line = _line_width(image)
    for mask in truth:
        _draw_outline(drawn, PackedMask.of(mask), 2 * line, PAPER)
        _draw_outline(drawn, PackedMask.of(mask), line, INK)
    return drawn


def grounding_overlay(grounding: Grounding) -> Image.Image:
    """Draw the mask of every phrase in its colour over the image in its own colours and size."""
    drawn = grounding.image.copy()
    draw_grounding(drawn, grounding)
    return drawn


def draw_grounding(canvas: Image.Image, grounding: Grounding) -> None:
    """Draw the mask of every phrase in its colour into a canvas that begins with the image."""
    masks = [grounded.packed for grounded in grounding.phrases]
    _draw_masks(canvas, grounding.image, masks, [colour_of(index) for index in range(len(masks))])


def write_png(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write an image as PNG, creating its folder."""
    with whole_file(path) as temporary:
        save_png(image, temporary)


def _draw_masks(
    canvas: Image.Image, inside: Image.Image, masks: Iterable[PackedMask], colours: Sequence[Colour]
) -> None:
    """Draw masks into a canvas: filled with a mixture of the image `inside` and their colour, and outlined in it."""
    line = _line_width(inside)
    for mask, colour in zip(masks, colours, strict=True):
        if box := mask.box:
            tables = [_table(0.45, 0.55 * part) for part in colour]
            tinted = inside.crop(box).point([value for table in tables for value in table])
            canvas.paste(tinted, box, Image.fromarray(mask.in_box()))
        _draw_outline(canvas, mask, line, colour)


def _draw_outline(canvas: Image.Image, mask: PackedMask, width: int, colour: Colour) -> None:
    if mask.box:
        canvas.paste(colour, mask.box, Image.fromarray(outline(mask.in_box(), width)))


def _table(factor: float, added: float) -> list[int]:
    """What `factor * value + added` is for every value of a channel, as a table that images can be mapped through."""
    values = np.float32(factor) * np.arange(256, dtype=np.float32) + np.float32(added)
    table: list[int] = values.astype(np.uint8).tolist()
    return table


def _line_width(image: Image.Image) -> int:
    return max(1, min(image.size) // 120)


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask that are fewer than `width` steps up, down, left or right from its outside."""
    inner, reach = mask.copy(), 0
    while reach < width:
        step = min(max(reach, 1), width - reach)  # what is `reach` steps in is looked at `step` further: as many again
        before = inner.copy()
        inner[:step], inner[-step:], inner[:, :step], inner[:, -step:] = False, False, False, False
        inner[step:] &= before[:-step]
        inner[:-step] &= before[step:]
        inner[:, step:] &= before[:, :-step]
        inner[:, :-step] &= before[:, step:]
        reach += step
    rim: NDArray[np.bool_] = mask & ~inner
    return rim
