"""Lines of text in every script: which font has each letter, where a line breaks, which way it is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from PIL import Image, ImageDraw, features

from vlm_adapters.output.font_files import FontFile, font_of, shipped_font
from vlm_adapters.output.render import Colour

_JOINERS = "\u200d\ufe0e\ufe0f"
"""Between or after letters that are drawn as one: a zero-width joiner, and what chooses text or emoji."""


@dataclass(frozen=True)
class _Run:
    """Letters that are drawn at once: of one font, in one colour, read one way."""

    text: str
    font: FontFile
    colour: Colour
    level: int

    def width(self, size: int) -> float:
        return _run_width(self.font, self.text, size, self.level)


def length(text: str, size: int) -> float:
    """The width of a line of text, in pixels, at a size of its letters in pixels."""
    return sum(run.width(size) for run in _runs(text, [(0, 0, 0)] * len(text), to_left=False))


def breaks(text: str, size: int, width: int) -> list[tuple[int, int]]:
    """Break a text into lines.

    Lines end between words, beside ideographs, and within a word that is longer than a line.

    Args:
        text: The text.
        size: Size of its letters, in pixels.
        width: Of a line, in pixels.

    Returns:
        For every line its first letter, and the one after its last.
    """
    lines = [(0, 0)]
    for start, end in _units(text):
        first, _ = lines[-1]
        if length(text[first:end].rstrip(), size) <= width:
            lines[-1] = (first, end)
            continue
        parts = [(start, end)] if length(text[start:end].rstrip(), size) <= width else _clusters(text, start, end)
        for part_start, part_end in parts:
            first, last = lines[-1]
            if last > first and length(text[first:part_end].rstrip(), size) > width:
                lines.append((part_start, part_end))
            else:
                lines[-1] = (first, part_end)
    return lines


def fitted(text: str, size: int, width: int, most_lines: int) -> list[str]:
    """Break a text into lines, at most so many; the last then ends with an ellipsis."""
    lines = [text[start:end] for start, end in breaks(text, size, width)]
    if len(lines) <= most_lines:
        return lines
    last = lines[most_lines - 1].rstrip()
    while last and length(last + "…", size) > width:
        last = last[:-1]
    return [*lines[: most_lines - 1], last + "…"]


def line_height(size: int) -> int:
    """The height of a line of letters of this size, with marks above and below; both in pixels."""
    return round(1.4 * size)


def draw_line(
    canvas: Image.Image,
    corner: tuple[int, int],
    text: str,
    size: int,
    colours: Sequence[Colour],
    *,
    to_left: bool = False,
) -> list[tuple[int, int, Colour]]:
    """Draw a line of text, its letters in the order of their script.

    Args:
        canvas: The RGB image to draw into.
        corner: Its left and its top, in pixels.
        text: The line.
        size: Size of its letters, in pixels.
        colours: The colour of every letter.
        to_left: Whether the text that the line is of is read from right to left; words of the other way are not.

    Returns:
        Left, right and colour of what was drawn, from left to right.
    """
    left, baseline = float(corner[0]), corner[1] + round(1.05 * size)
    drawn = []
    for run in _in_visual_order(_runs(text, colours, to_left=to_left)):
        width = run.width(size)
        _draw_run(canvas, (left, baseline), run, size)
        drawn.append((round(left), round(left + width), run.colour))
        left += width
    return drawn


def is_right_to_left(text: str) -> bool:
    """Whether the first letter that has a direction is read from right to left."""
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    return next((kind in ("R", "AL") for kind in kinds if kind in ("L", "R", "AL")), False)


def printable(text: str) -> str:
    """The text with every white space and control character as a space, so that it fits on a line; same length."""
    return "".join(letter if letter.isprintable() or letter in _JOINERS else " " for letter in text)


def _draw_run(canvas: Image.Image, start: tuple[float, float], run: _Run, size: int) -> None:
    if run.font.bitmap_size is None:
        font, direction = run.font.at(size), _direction(run.level)
        ImageDraw.Draw(canvas).text(start, _in_order(run), run.colour, font, anchor="ls", direction=direction)
        return
    font, large = run.font.at(size), run.font.bitmap_size
    drawn = Image.new("RGBA", (max(1, round(font.getlength(run.text))), round(1.25 * large)))
    ImageDraw.Draw(drawn).text((0, large), run.text, run.colour, font, anchor="ls", embedded_color=True)
    small = drawn.resize((max(1, round(drawn.width * size / large)), max(1, round(drawn.height * size / large))))
    canvas.paste(small, (round(start[0]), round(start[1] - size)), small)


def _runs(text: str, colours: Sequence[Colour], *, to_left: bool) -> list[_Run]:
    """The runs of a text in the order in which they are read."""
    levels = _levels(text, int(to_left))
    parts = []
    for start, end in _clusters(text, 0, len(text)):
        font, shown, level = font_of(text[start]), text[start:end], levels[start]
        if font is None:
            font, shown, level = shipped_font(), f"[U+{ord(text[start]):04X}]", levels[start] + levels[start] % 2
        parts.append(_Run(shown, font, colours[start], level))
    alike = groupby(parts, key=lambda run: (run.font, run.colour, run.level))
    return [_Run("".join(run.text for run in runs), *key) for key, runs in alike]


def _clusters(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Letters with their marks, as pairs of the first and the one after the last."""
    found: list[tuple[int, int]] = []
    for position in range(start, end):
        if found and (_is_mark(text[position]) or text[position - 1] == "\u200d"):
            found[-1] = (found[-1][0], position + 1)
        else:
            found.append((position, position + 1))
    return found


def _is_mark(letter: str) -> bool:
    is_skin = "\U0001f3fb" <= letter <= "\U0001f3ff"
    return unicodedata.category(letter).startswith("M") or letter in _JOINERS or is_skin


def _units(text: str) -> Iterator[tuple[int, int]]:
    """Yield what stays on a line: a word with the space after it, or an ideograph with what closes it."""
    first, breakable = 0, False
    for start, end in _clusters(text, 0, len(text)):
        letter = text[start]
        is_wide = unicodedata.east_asian_width(letter) in "WF"
        closes = unicodedata.category(letter) in ("Pe", "Pf", "Po") or letter == " "
        if start > first and not closes and (breakable or is_wide):
            yield first, start
            first = start
        breakable = letter == " " or is_wide or (breakable and closes)
        last = end
    if text:
        yield first, last


def _levels(text: str, base: int) -> list[int]:
    """How deep every letter is nested in text that is read the other way: even is left to right, odd right to left.

    Unicode's algorithm for two directions and numbers, without the marks that embed and override.
    """
    ways: list[int | None] = []  # 1 for what counts as read from right to left; None for what has no way
    is_number: list[bool] = []
    strong = base
    for letter in text:
        kind = unicodedata.bidirectional(letter)
        is_number.append(kind in ("EN", "AN"))
        if kind in ("L", "R", "AL"):
            strong = int(kind != "L")
        is_mark = kind == "NSM" and bool(ways)
        ways.append(ways[-1] if is_mark else strong if kind in ("L", "R", "AL", "EN", "AN") else None)
    ahead, after = [], base
    for way in reversed(ways):
        after = after if way is None else way
        ahead.append(after)
    levels, before = [], base
    for way, after, number in zip(ways, reversed(ahead), is_number, strict=True):
        found = way if way is not None else before if before == after else base
        before = before if way is None else way
        levels.append(2 if number and found else found if found >= base else 2)
    kept = len(text.rstrip())  # spaces that end a text are read as all of it is
    return levels[:kept] + [base] * (len(text) - kept)


def _in_visual_order(read: Sequence[_Run]) -> list[_Run]:
    """Runs from left to right: from the deepest level outwards, what lies at it or deeper is turned round."""
    ordered = list(read)
    for level in range(max((run.level for run in read), default=0), 0, -1):
        turned: list[_Run] = []
        for is_deep, group in groupby(ordered, key=lambda run: run.level >= level):
            runs = list(group)
            turned += runs[::-1] if is_deep else runs
        ordered = turned
    return ordered


def _in_order(run: _Run) -> str:
    """The text of a run, turned round by hand where nothing shapes it: letters do not join then."""
    return run.text if _shapes() or run.level % 2 == 0 else run.text[::-1]


def _direction(level: int) -> str | None:
    return ("rtl" if level % 2 else "ltr") if _shapes() else None


@lru_cache(maxsize=1)
def _shapes() -> bool:
    """Whether Pillow can join and order letters as their script asks, by libraqm."""
    return bool(features.check("raqm"))


@lru_cache(maxsize=8192)
def _run_width(font: FontFile, text: str, size: int, level: int) -> float:
    if font.bitmap_size is not None:
        return font.at(size).getlength(text) * size / font.bitmap_size
    return font.at(size).getlength(text, direction=_direction(level))
