"""Figures for people: a grounding at a glance, sheets of heat maps and of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.result import GroundedPhrase, Grounding
from vlm_adapters.grounding.video import VideoGrounding
from vlm_adapters.output.blocks import FAINT, PANEL, WARNING, Block, Page, stack
from vlm_adapters.output.render import (
    INK,
    PAPER,
    colour_of,
    draw_grounding,
    grounding_overlay,
    mask_overlay,
    shrunk,
    shrunk_map,
    shrunk_mask,
)

HEAT_COLUMNS = 7
"""Panels in a row of a sheet of heat maps; more are put below."""

FIGURE_COLUMNS = 5
"""Columns in a row of a grounding's figure."""

FIGURE_PHRASES = 99
"""Largest number of phrases in a grounding's figure: 20 rows, which nobody looks beyond."""

LEGEND_PHRASES = 30
"""Largest number of phrases in the legend of an overlay."""

VIDEO_COLUMNS = 4
"""Frames in a row of a video's sheet."""

SHEET_COLUMNS = 4
"""Samples in a row of a sheet of masks."""

_CAPTIONS = {
    "decoder": "Above: where the phrase looks, the mean of the few heads whose attention lies most on the mask, each "
    "divided by its sum; it is the attention as the model computed it, not compared with a neutral sentence. Below: "
    "the mask; score: the mean probability inside it",
    "heads": "Above: where the phrase looks beside a neutral sentence, by the heads of the profile. Below: the mask, "
    "where that is above the profile's threshold, or what Segment Anything made of it; score: its mean height inside",
    "box": "Masks are the boxes that the model wrote, filled, or what Segment Anything made of them; no attention was "
    "read",
}
_SCALE = "; the scale below a map is in multiples of its mean over the image"
_PRESENCE = "; presence: that the phrase is in the image"


def grounding_figure(grounding: Grounding, truth: Sequence[NDArray[np.bool_]] | None = None) -> Image.Image:
    """Draw the sentence in colours, the image, and a heat map and a mask for every phrase.

    Panels are as large as the image, up to 1,000 pixels, and smaller where there are many phrases. A grounding by boxes
    has no heat maps: no attention was read.

    Args:
        grounding: What to show.
        truth: The true masks `(H, W)` of the phrases, where known; their outlines are drawn over the masks, and the
            IoU is written above each.
    """
    phrases, looks = grounding.phrases[:FIGURE_PHRASES], grounding.method != "box"
    size = (grounding.image.height, grounding.image.width)
    page = Page.of([size], (1 + looks) * (len(phrases) + 1))
    image = shrunk(grounding.image, page.side)
    size = image.height, image.width
    masks = [shrunk_mask(grounded.packed, size) for grounded in phrases]
    colours = [colour_of(index) for index in range(len(masks))]
    plain = [page.lines("the image"), page.panel(size, lambda: image)]
    all_masks = [page.lines("all masks"), page.panel(size, lambda: mask_overlay(image, masks, colours))]
    columns = (
        [[*plain, *all_masks]] if looks else [[plain[0], _NOTHING, plain[1]], [all_masks[0], _NOTHING, all_masks[1]]]
    )
    for index, grounded in enumerate(phrases):
        colour, said, true_masks = colours[index], [_found(grounded)], []
        if truth is not None:
            said.append(f"IoU {mask_iou(grounded.mask, truth[index]):.2f}")
            true_masks.append(shrunk_mask(truth[index], size))
        heat = [page.heat_panel(image, partial(grounded.attention.placed, size))] if looks else []
        draw = partial(mask_overlay, image, [masks[index]], [colour], true_masks)
        lines = stack([page.lines(line, colour) for line in said], 0)
        columns.append([page.lines(grounded.phrase.text, colour), *heat, lines, page.panel(size, draw)])
    body = page.table(columns, FIGURE_COLUMNS)
    width = max(body.width, 2 * page.side + page.gap)
    spans = [grounded.phrase.span for grounded in grounding.phrases]
    blocks = [page.sentence(grounding.text, spans, width)]
    blocks += [page.paragraph(warning, width, WARNING) for warning in grounding.warnings]
    return page.framed([*blocks, body, page.paragraph(_caption(grounding, has_truth=truth is not None), width)])


def labelled_overlay(grounding: Grounding) -> Image.Image:
    """Draw masks and thin boxes over the image in its own size, and a legend of the phrases in a strip below it."""
    image = grounding.image
    side = max(PANEL, max(image.size) // 4)
    page = Page(side, side)
    columns = max(1, (image.width - page.gap) // (page.width + page.gap))
    named = [_legend_entry(page, index, grounded) for index, grounded in enumerate(grounding.phrases[:LEGEND_PHRASES])]
    if len(grounding.phrases) > LEGEND_PHRASES:
        named.append(page.lines(f"and {len(grounding.phrases) - LEGEND_PHRASES:,} more phrases"))
    legend = page.table([[entry] for entry in named], columns) if named else _NOTHING
    width = max(image.width, legend.width + 2 * page.gap if named else 0)
    height = image.height + (legend.height + 2 * page.gap if named else 0)
    canvas = Image.new("RGB", (width, height), PAPER)
    canvas.paste(image)
    draw_grounding(canvas, grounding)
    line, draw = max(1, min(image.size) // 300), ImageDraw.Draw(canvas)
    for index, grounded in enumerate(grounding.phrases):
        if grounded.box:
            left, top, right, bottom = grounded.box
            draw.rectangle((left, top, right - 1, bottom - 1), outline=colour_of(index), width=line)
    legend.paint(canvas, page.gap, image.height + page.gap)
    return canvas


def heat_sheet(
    image: Image.Image,
    rows: Sequence[tuple[str, Sequence[tuple[str, NDArray[np.float32]]]]],
    *,
    sentence: tuple[str, Sequence[tuple[int, int]]] | None = None,
    caption: str = "",
) -> Image.Image:
    """Draw a sheet of heat maps, each with its caption and the scale of its colours: a title, and its maps below.

    Args:
        image: RGB image of `H x W` pixels, shown before the maps of the first title.
        rows: `(title, [(caption, map (H, W), not negative), ...])`; maps may be at the size of `shrunk(image)`, too.
        sentence: What the model read, above all, and the spans of its phrases.
        caption: What is shown, below all.
    """
    counts = [len(maps) + (index == 0) for index, (_, maps) in enumerate(rows)]
    page = Page.of([(image.height, image.width)], sum(counts))
    small = shrunk(image, page.side)
    size = small.height, small.width
    columns = _even_columns(counts)
    width = max(2, columns) * (page.width + page.gap) - page.gap
    blocks = [] if sentence is None else [page.sentence(*sentence, width)]
    for index, (title, maps) in enumerate(rows):
        cells = [[page.lines("the image"), page.panel(size, lambda: small)]] if index == 0 else []
        cells += [[page.lines(words), page.heat_panel(small, partial(shrunk_map, heat, size))] for words, heat in maps]
        blocks += [page.paragraph(title, width, INK), page.table(cells, columns)]
    blocks += [page.paragraph(caption, width)] if caption else []
    return page.framed(blocks)


def mask_sheet(
    samples: Sequence[tuple[Image.Image, Sequence[str], Sequence[NDArray[np.bool_]], Sequence[NDArray[np.bool_]]]],
    title: str = "",
) -> Image.Image:
    """Draw a contact sheet: the image of every sample, its masks with the true outlines, and the IoU of every phrase.

    Args:
        samples: `(image, phrases, masks, true masks)`, masks `(H, W)` bool, one per phrase.
        title: What the sheet is of, such as the step of a training and its metric.
    """
    page = Page.of([(image.height, image.width) for image, *_ in samples], 2 * len(samples))
    columns = []
    for image, phrases, masks, truth in samples:
        colours = [colour_of(index) for index in range(len(masks))]
        small = shrunk(image, page.side)
        size = small.height, small.width
        found, true_masks = ([shrunk_mask(mask, size) for mask in some] for some in (masks, truth))
        draw = partial(mask_overlay, small, found, colours, true_masks)
        captions = [
            page.lines(f"IoU {mask_iou(mask, true_mask):.2f}  {phrase}", colour, most=_ALL_LINES)
            for phrase, mask, true_mask, colour in zip(phrases, masks, truth, colours, strict=True)
        ]
        columns.append([page.panel(size, _given(small)), page.panel(size, draw), stack(captions, 0)])
    body = page.table(columns, SHEET_COLUMNS)
    width = max(body.width, 2 * page.side + page.gap)
    heading = [page.sentence(title, [], width)] if title else []
    legend = "Coloured: the masks that were found. Black line: the true outline."
    return page.framed([*heading, body, page.paragraph(legend, width)])


def video_sheet(grounding: VideoGrounding) -> Image.Image:
    """Draw a contact sheet of a video: every frame with its time and the masks of all phrases, under the sentence."""
    sizes = [(of_frame.image.height, of_frame.image.width) for of_frame in grounding.frames]
    page = Page.of(sizes, len(sizes))
    panels = [
        [page.lines(f"{second:.2f} s"), page.panel(size, partial(grounding_overlay, of_frame))]
        for second, of_frame, size in zip(grounding.video.seconds, grounding.frames, sizes, strict=True)
    ]
    body = page.table(panels, VIDEO_COLUMNS)
    width = max(body.width, 2 * page.side + page.gap)
    first = grounding.frames[0]
    return page.framed([page.sentence(first.text, [found.phrase.span for found in first.phrases], width), body])


_NOTHING = stack([], 0)
_ALL_LINES = 20


def _given(image: Image.Image) -> Callable[[], Image.Image]:
    return lambda: image


def _found(grounded: GroundedPhrase) -> str:
    """What came of a phrase, in a line."""
    found = f"score {grounded.score:.2f}" if grounded.box else "nothing found"
    found = "absent" if grounded.state == "absent" else found
    presence = [] if grounded.presence is None else [f"presence {grounded.presence:.2f}"]
    return " · ".join([*presence, found])


def _caption(grounding: Grounding, *, has_truth: bool) -> str:
    caption = _CAPTIONS[grounding.method] + (_SCALE if grounding.method != "box" else "")
    if any(grounded.presence is not None for grounded in grounding.phrases):
        caption += _PRESENCE
    caption += "; black line: the true outline." if has_truth else "."
    if len(grounding.phrases) > FIGURE_PHRASES:
        return f"The first {FIGURE_PHRASES} of {len(grounding.phrases)} phrases are shown. {caption}"
    return caption


def _legend_entry(page: Page, index: int, grounded: GroundedPhrase) -> Block:
    """A swatch, the words of a phrase, and what came of it."""
    swatch, text = page.scaled(14), page.scaled(20)
    words = stack([page.lines(grounded.phrase.text, indent=text), page.lines(_found(grounded), FAINT, indent=text)], 0)

    def paint(canvas: Image.Image, left: int, top: int) -> None:
        down = top + page.scaled(5)
        ImageDraw.Draw(canvas).rectangle((left, down, left + swatch, down + swatch), colour_of(index))
        words.paint(canvas, left + text, top)

    return Block(page.width, words.height, paint)


def _even_columns(counts: Sequence[int]) -> int:
    """The number of columns, at most `HEAT_COLUMNS`, that leaves the fewest cells empty; of such, the largest."""
    most = min(HEAT_COLUMNS, max(counts))
    least = min(most, (HEAT_COLUMNS + 1) // 2)
    return min(range(least, most + 1), key=lambda columns: (sum(-count % columns for count in counts), -columns))
