"""What figures are made of: blocks of text and images that know their size and are painted last, into one canvas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlm_adapters.geometry import Size
from vlm_adapters.output.render import INK, PAPER, Colour, colour_of, heat_overlay
from vlm_adapters.output.text import breaks, draw_line, fitted, is_right_to_left, length, line_height, printable

FAINT: Colour = (110, 110, 110)
"""Colour of explanations."""

WARNING: Colour = (190, 30, 30)
"""Colour of what must be known of a figure before it is believed."""

GAP = 12
"""Pixels between panels and around a figure, whose panels have `PANEL` pixels."""

PANEL = 260
"""Shortest longest side of a panel, in pixels. Everything in a figure of larger panels grows with them."""

LARGEST_PANEL = 1000
"""Longest side of a panel in pixels: a figure shows large images so that one can look into them."""

MOST_PIXELS = 16_000_000
"""Pixels of all panels of a figure, above which panels are smaller, down to `PANEL`."""

TEXT, SMALL_TEXT, LARGE_TEXT = 17, 15, 20
"""Sizes of letters, in pixels, beside panels of `PANEL` pixels."""

LEAST_TOP = 4.0
"""What the brightest colour of a heat map stands for at least, in means of the map: a flat map stays dark."""

_PHRASE_LINES = 3

_NARROWEST = 0.7
"""Width of the text above panels of tall images, in longest sides of a panel."""


@dataclass(frozen=True)
class Block:
    """A part of a figure, painted when the whole is.

    Attributes:
        width: In pixels.
        height: In pixels.
        paint: Paints it into a canvas, its left and top given.
    """

    width: int
    height: int
    paint: Callable[[Image.Image, int, int], None]


def stack(blocks: Sequence[Block], gap: int) -> Block:
    """Blocks below each other."""
    tops = [sum(block.height + gap for block in blocks[:index]) for index in range(len(blocks) + 1)]

    def paint(canvas: Image.Image, left: int, top: int) -> None:
        for block, down in zip(blocks, tops, strict=False):
            block.paint(canvas, left, top + down)

    return Block(max((block.width for block in blocks), default=0), max(0, tops[-1] - gap), paint)


def beside(blocks: Sequence[Block], gap: int) -> Block:
    """Blocks from left to right."""
    lefts = [sum(block.width + gap for block in blocks[:index]) for index in range(len(blocks) + 1)]

    def paint(canvas: Image.Image, left: int, top: int) -> None:
        for block, across in zip(blocks, lefts, strict=False):
            block.paint(canvas, left + across, top)

    return Block(max(0, lefts[-1] - gap), max((block.height for block in blocks), default=0), paint)


def picture(size: tuple[int, int], draw: Callable[[], Image.Image]) -> Block:
    """An image, drawn when it is painted, at this size `(width, height)`."""

    def paint(canvas: Image.Image, left: int, top: int) -> None:
        drawn = draw()
        canvas.paste(drawn if drawn.size == size else drawn.resize(size), (left, top))

    return Block(*size, paint)


@dataclass(frozen=True)
class Page:
    """The sizes of a figure, all in proportion to its panels.

    Attributes:
        side: Longest side of a panel, in pixels.
        width: Of a panel and of the text above it, in pixels.
    """

    side: int
    width: int

    @classmethod
    def of(cls, sizes: Sequence[Size], panels: int) -> Page:
        """A page for images of these sizes `(H, W)` in so many panels: as large as they are, within bounds."""
        longest = max((max(size) for size in sizes), default=PANEL)
        side = max(PANEL, min(longest, math.isqrt(MOST_PIXELS // max(1, panels)), LARGEST_PANEL))
        widest = max((width / max(height, width) for height, width in sizes), default=1.0)
        return cls(side, round(side * max(widest, _NARROWEST)))

    def scaled(self, pixels: int) -> int:
        """Pixels of this page, for pixels beside panels of `PANEL`."""
        return round(pixels * self.side / PANEL)

    @property
    def gap(self) -> int:
        """Pixels between panels and around the figure."""
        return self.scaled(GAP)

    def framed(self, blocks: Sequence[Block]) -> Image.Image:
        """Paint blocks below each other, with a margin."""
        whole = stack(blocks, self.gap // 2)
        canvas = Image.new("RGB", (whole.width + 2 * self.gap, whole.height + 2 * self.gap), PAPER)
        whole.paint(canvas, self.gap, self.gap)
        return canvas

    def table(self, columns: Sequence[Sequence[Block]], most: int) -> Block:
        """Columns of cells, at most so many beside each other; what stands in a row begins at one height."""
        rows = []
        for start in range(0, len(columns), most):
            some = columns[start : start + most]
            heights = [
                max((column[row].height for column in some if row < len(column)), default=0)
                for row in range(max(map(len, some)))
            ]
            padded = [
                [Block(cell.width, height, cell.paint) for cell, height in zip(column, heights, strict=False)]
                for column in some
            ]
            rows.append(beside([stack(column, self.gap // 2) for column in padded], self.gap))
        return stack(rows, self.gap)

    def panel(self, size: Size, draw: Callable[[], Image.Image]) -> Block:
        """An image of `(H, W)` pixels at the size of a panel, in a cell that is as wide as it is long."""
        scale = self.side / max(size)
        block = picture((max(1, round(size[1] * scale)), max(1, round(size[0] * scale))), draw)
        return Block(self.width, block.height, block.paint)

    def heat_panel(self, image: Image.Image, heat: Callable[[], NDArray[np.float32]]) -> Block:
        """A heat map `(H, W)` over an image of that size, and below it the scale of its colours."""
        panel = self.panel((image.height, image.width), lambda: image)
        letters = self.scaled(SMALL_TEXT)

        def paint(canvas: Image.Image, left: int, top: int) -> None:
            values, most = in_means(heat())
            drawn = heat_overlay(image, values / np.float32(most))
            self.panel((image.height, image.width), lambda: drawn).paint(canvas, left, top)
            below = top + panel.height + self.gap // 2
            self._paint_scale(canvas, (left, below), f"{most:.1f}\N{MULTIPLICATION SIGN} mean")

        return Block(self.width, panel.height + self.gap // 2 + line_height(letters), paint)

    def lines(self, text: str, colour: Colour = INK, *, most: int = _PHRASE_LINES, indent: int = 0) -> Block:
        """A text as wide as a panel less `indent`, in as many lines as it needs, at most so many."""
        letters, width = self.scaled(TEXT), self.width - indent
        shown = fitted(printable(text), letters, width, most)
        return _text_block(shown, [[colour] * len(line) for line in shown], letters, width, is_whole=False)

    def paragraph(self, text: str, width: int, colour: Colour = FAINT) -> Block:
        """An explanation, wrapped."""
        letters = self.scaled(SMALL_TEXT)
        shown = printable(text)
        lines = [shown[start:end] for start, end in breaks(shown, letters, width)]
        return _text_block(lines, [[colour] * len(line) for line in lines], letters, width)

    def sentence(self, text: str, spans: Sequence[tuple[int, int]], width: int) -> Block:
        """A sentence, wrapped, its phrases in their colours and underlined."""
        colours = [INK] * len(text)
        for index, (start, end) in enumerate(spans):
            colours[start:end] = [colour_of(index)] * (end - start)
        shown, letters = printable(text), self.scaled(LARGE_TEXT)
        parts = breaks(shown, letters, width)
        lines = [shown[start:end] for start, end in parts]
        return _text_block(lines, [colours[start:end] for start, end in parts], letters, width)

    def _paint_scale(self, canvas: Image.Image, corner: tuple[int, int], most: str) -> None:
        """Paint the colours of a heat map from nothing to the most, with what they stand for."""
        (left, top), letters, gap = corner, self.scaled(SMALL_TEXT), self.scaled(6)
        zero, end = math.ceil(length("0", letters)), math.ceil(length(most, letters))
        bar = self.width - zero - end - 2 * gap
        ramp = np.linspace(0, 1, bar, dtype=np.float32)[None].repeat(letters // 2, axis=0)
        colours = heat_overlay(Image.new("RGB", (bar, letters // 2), (96, 96, 96)), ramp)
        draw_line(canvas, corner, "0", letters, [FAINT])
        canvas.paste(colours, (left + zero + gap, top + round(0.45 * letters)))
        draw_line(canvas, (left + zero + bar + 2 * gap, top), most, letters, [FAINT] * len(most))


def in_means(heat: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """A map in multiples of its mean, and what the brightest colour stands for: its peak, or `LEAST_TOP` if less."""
    mean = max(float(heat.mean(dtype=np.float64)), 1e-12)
    return heat / np.float32(mean), max(float(heat.max()) / mean, LEAST_TOP)


def _text_block(
    lines: Sequence[str], colours: Sequence[Sequence[Colour]], size: int, width: int, *, is_whole: bool = True
) -> Block:
    """Lines of text; where they are a whole sentence, phrases are underlined, and Arabic begins on the right."""
    step, to_left = line_height(size), is_right_to_left("".join(lines))

    def paint(canvas: Image.Image, left: int, top: int) -> None:
        for row, (line, of_line) in enumerate(zip(lines, colours, strict=True)):
            shown, down = line.rstrip(), top + row * step
            indent = max(0, width - math.ceil(length(shown, size))) if is_whole and to_left else 0
            corner = (left + indent, down)
            drawn = draw_line(canvas, corner, shown, size, of_line[: len(shown)], to_left=to_left)
            for first, last, colour in drawn if is_whole else ():
                if colour not in (INK, FAINT, WARNING):
                    below = down + round(1.28 * size)
                    ImageDraw.Draw(canvas).line((first, below, last, below), colour, max(1, size // 10))

    return Block(width, max(1, len(lines)) * step, paint)
