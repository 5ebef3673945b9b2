"""Figures for people: a grounding at a glance, sheets of heat maps and of masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.result import GroundedPhrase, Grounding
from vlm_adapters.grounding.video import VideoGrounding
from vlm_adapters.output.render import (
    INK,
    PAPER,
    Colour,
    colour_of,
    grounding_overlay,
    heat_overlay,
    mask_overlay,
    shrunk,
    shrunk_map,
    shrunk_mask,
)

FAINT: Colour = (110, 110, 110)
"""Colour of explanations."""

WARNING: Colour = (190, 30, 30)
"""Colour of what must be known of a figure before it is believed."""

GAP = 12
"""Pixels between panels and around a figure."""

PANEL = 260
"""Longest side of a panel, in pixels."""

LINE = 24
"""Height of a line of text, in pixels."""

HEAT_COLUMNS = 7
"""Panels in a row of a sheet of heat maps; more are put below."""

FIGURE_COLUMNS = 5
"""Columns in a row of a grounding's figure."""

FIGURE_PHRASES = 99
"""Largest number of phrases in a grounding's figure: 20 rows, which nobody looks beyond."""

VIDEO_COLUMNS = 4
"""Frames in a row of a video's sheet."""

SHEET_COLUMNS = 4
"""Samples in a row of a sheet of masks."""


def grounding_figure(grounding: Grounding, truth: Sequence[NDArray[np.bool_]] | None = None) -> Image.Image:
    """Draw the sentence in colours, the image, and a heat map and a mask for every phrase.

    Args:
        grounding: What to show.
        truth: The true masks `(H, W)` of the phrases, where known; their outlines are drawn over the masks, and the
            IoU is written above each.
    """
    image = shrunk(grounding.image)
    phrases = grounding.phrases[:FIGURE_PHRASES]
    masks = [shrunk_mask(grounded.packed, (image.height, image.width)) for grounded in phrases]
    colours = [colour_of(index) for index in range(len(masks))]
    columns = [
        _stack(
            [
                _line("the image", INK),
                _panel(image),
                _line("all masks", INK),
                *([] if truth is None else [_line("", INK)]),
                _panel(mask_overlay(image, masks, colours)),
            ]
        )
    ]
    columns += [
        _phrase_column(image, grounded, masks[index], index, None if truth is None else truth[index])
        for index, grounded in enumerate(phrases)
    ]
    body = _stack(
        [_beside(columns[start : start + FIGURE_COLUMNS]) for start in range(0, len(columns), FIGURE_COLUMNS)]
    )
    legend = "Above: the attention of the heads that agree best with the mask (bright = high). Below: the mask"
    legend += "; score: the mean probability inside it; presence: that the phrase is in the image"
    legend += "." if truth is None else "; black line: the true outline."
    if len(grounding.phrases) > FIGURE_PHRASES:
        legend = f"The first {FIGURE_PHRASES} of {len(grounding.phrases)} phrases are shown. {legend}"
    width = max(body.width, 2 * PANEL + GAP)
    warned = [line for warning in grounding.warnings for line in _paragraph(warning, width, WARNING)]
    return _framed(_stack([_sentence(grounding, width), *warned, body, *_paragraph(legend, width)]))


def heat_sheet(
    image: Image.Image, rows: Sequence[tuple[str, Sequence[tuple[str, NDArray[np.float32]]]]]
) -> Image.Image:
    """Draw a sheet of heat maps: one row per title, each map with a caption.

    Args:
        image: RGB image of `H x W` pixels, shown at the start of every row.
        rows: `(title, [(caption, map (H, W) in [0, 1]), ...])`; maps may be at the size of `shrunk(image)`, too.
    """
    lines = []
    image = shrunk(image)
    size = image.height, image.width
    for index, (title, maps) in enumerate(rows):
        panels = [_stack([_line("image", INK), _panel(image)])]
        panels += [
            _stack([_line(caption, INK), _panel(heat_overlay(image, shrunk_map(heat, size)))]) for caption, heat in maps
        ]
        lines.append(_line(title, colour_of(index), HEAT_COLUMNS * (PANEL + GAP)))
        lines += [_beside(panels[start : start + HEAT_COLUMNS]) for start in range(0, len(panels), HEAT_COLUMNS)]
    return _framed(_stack(lines))


def mask_sheet(
    samples: Sequence[tuple[Image.Image, Sequence[str], Sequence[NDArray[np.bool_]], Sequence[NDArray[np.bool_]]]],
) -> Image.Image:
    """Draw a contact sheet: the image of every sample, its masks with the true outlines, and the IoU of every phrase.

    Args:
        samples: `(image, phrases, masks, true masks)`, masks `(H, W)` bool, one per phrase.
    """
    columns = []
    for image, phrases, masks, truth in samples:
        colours = [colour_of(index) for index in range(len(masks))]
        small = shrunk(image)
        found, true_masks = (
            [shrunk_mask(mask, (small.height, small.width)) for mask in some] for some in (masks, truth)
        )
        panels = [_panel(small), _panel(mask_overlay(small, found, colours, true_masks))]
        captions = [
            _line(f"{mask_iou(mask, true_mask):.2f}  {phrase}", colour)
            for phrase, mask, true_mask, colour in zip(phrases, masks, truth, colours, strict=True)
        ]
        columns.append(_stack([*panels, *captions]))
    rows = [columns[start : start + SHEET_COLUMNS] for start in range(0, len(columns), SHEET_COLUMNS)]
    return _framed(_stack([_beside(row) for row in rows]))


def video_sheet(grounding: VideoGrounding) -> Image.Image:
    """Draw a contact sheet of a video: every frame with its time and the masks of all phrases, under the sentence."""
    panels = [
        _stack([_line(f"{second:.2f} s", INK), _panel(grounding_overlay(of_frame))])
        for second, of_frame in zip(grounding.video.seconds, grounding.frames, strict=True)
    ]
    rows = [panels[start : start + VIDEO_COLUMNS] for start in range(0, len(panels), VIDEO_COLUMNS)]
    body = _stack([_beside(row) for row in rows])
    width = max(body.width, 2 * PANEL + GAP)
    return _framed(_stack([_sentence(grounding.frames[0], width), body]))


def _phrase_column(
    image: Image.Image,
    grounded: GroundedPhrase,
    mask: NDArray[np.bool_],
    index: int,
    truth: NDArray[np.bool_] | None,
) -> Image.Image:
    """The words of a phrase, its map and its shrunk mask over the shrunk image."""
    colour, size = colour_of(index), (image.height, image.width)
    found = f"score {grounded.score:.2f}" if grounded.box else "nothing found"
    if grounded.presence is not None:
        found = f"presence {grounded.presence:.2f} · {'absent' if grounded.state == 'absent' else found}"
    found_lines = [found] if truth is None else [found, f"IoU {mask_iou(grounded.mask, truth):.2f}"]
    true_masks = [] if truth is None else [shrunk_mask(truth, size)]
    return _stack(
        [
            _line(grounded.phrase.text, colour),
            _panel(heat_overlay(image, grounded.attention.placed(size))),
            *(_line(line, colour) for line in found_lines),
            _panel(mask_overlay(image, [mask], [colour], true_masks)),
        ]
    )


def _font(size: int = 17) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _printable(text: str) -> str:
    """The text with every white space and control character as a space, so that it fits on a line; same length."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _panel(image: Image.Image) -> Image.Image:
    scale = PANEL / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _line(text: str, colour: Colour, width: int = PANEL, size: int = 17) -> Image.Image:
    """One line of text, cut with an ellipsis where it does not fit."""
    font = _font(size)
    full = shown = _printable(text)
    while shown and font.getlength(shown if shown == full else shown + "…") > width:
        shown = shown[:-1]
    canvas = Image.new("RGB", (width, LINE), PAPER)
    ImageDraw.Draw(canvas).text((0, 1), shown if shown == full else shown + "…", colour, font)
    return canvas


def _paragraph(text: str, width: int, colour: Colour = FAINT) -> list[Image.Image]:
    """Lines of an explanation, wrapped."""
    font = _font(15)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_line(line, colour, width, 15) for line in lines]


def _sentence(grounding: Grounding, width: int) -> Image.Image:
    """The sentence, wrapped between words (and within one that is longer than a line), phrases coloured, underlined."""
    text = _printable(grounding.text)
    owner = [-1] * len(text)
    for index, grounded in enumerate(grounding.phrases):
        owner[slice(*grounded.phrase.span)] = [index] * (grounded.phrase.end - grounded.phrase.start)
    font = _font(20)
    placed: list[tuple[float, int, int]] = []
    x, row = 0.0, 0
    for position, letter in enumerate(text):
        step = font.getlength(letter)
        word_begins = position == 0 or text[position - 1] == " "
        ahead = font.getlength(text[position:].split(" ")[0]) if word_begins else step
        if x and letter != " " and x + (ahead if ahead <= width else step) > width:
            x, row = 0.0, row + 1
        placed.append((x, row, position))
        x += step
    canvas = Image.new("RGB", (width, (row + 1) * 28), PAPER)
    draw = ImageDraw.Draw(canvas)
    for left, line, position in placed:
        index = owner[position]
        colour = INK if index < 0 else colour_of(index)
        draw.text((left, line * 28), text[position], colour, font)
        if index >= 0:
            draw.line((left, line * 28 + 25, left + font.getlength(text[position]), line * 28 + 25), colour, 2)
    return canvas


def _stack(images: Sequence[Image.Image]) -> Image.Image:
    canvas = Image.new(
        "RGB", (max(image.width for image in images), sum(image.height + GAP // 2 for image in images)), PAPER
    )
    top = 0
    for image in images:
        canvas.paste(image, (0, top))
        top += image.height + GAP // 2
    return canvas


def _framed(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, GAP, PAPER)


def _beside(images: Sequence[Image.Image]) -> Image.Image:
    canvas = Image.new(
        "RGB", (sum(image.width + GAP for image in images) - GAP, max(image.height for image in images)), PAPER
    )
    left = 0
    for image in images:
        canvas.paste(image, (left, 0))
        left += image.width + GAP
    return canvas
