"""Limits on what strangers wrote, and the one way to show it in a message, with what was probably meant.

Files, prompts and configs are data until they are checked: work whose size they decide is bounded before it starts.
Every limit stands here, with room for what people really have; an argument `limits` raises it, never a file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from reprlib import Repr

_MOST_DIGITS, _MOST_SHOWN, _LONGEST_WORD = 40, 160, 100


@dataclass(frozen=True)
class Limits:
    """What the library accepts; more is an error before any work is done.

    Attributes:
        max_pixels: Largest product of width and height of an image; half of it where a second image, of panoptic
            segments, is read beside the first.
        max_aspect: Largest ratio of the long side of an image to its short side.
        max_file_bytes: Longest file that is read at once: JSON and pickles.
        max_containers: Most lists and objects in such a file; each takes about 64 bytes of memory.
        max_line_bytes: Longest line of a file with a JSON object per line.
        max_line_values: Most values in such a line, counted by commas.
        max_lines: Most lines in such a file.
        max_yaml_bytes: Longest YAML file.
        max_yaml_values: Most values in a YAML file, each counted again wherever an alias repeats it.
        max_sets: Most data sets that are opened for one: itself, and those that `without` names.
        max_problems: Most entries of a data set that may be broken; with more, the file is of another kind.
        max_phrases: Most phrases of a sample.
        max_text: Longest text of a sample, in characters.
        max_mask_pixels: Largest product of phrases, height and width of a sample. The masks of its annotations, which
            are read one after another, may have four times as many pixels.
        max_outline: Longest outline, in pixels, of all polygons of a sample together.
        max_run_letters: Longest text of run lengths.
        max_resized_pixels: Most pixels of an image after a family's processor has resized it.
        max_config_bytes: Largest JSON file, template or tokenizer file of a checkpoint.
        max_decoder_bytes: Largest file of a decoder's weights that is downloaded.
        max_layers: Most layers that a checkpoint's config may ask for, in any of its parts.
        max_canvas: Longest side to which a decoder enlarges maps, in cells.
        max_text_growth: Most characters that a tokenizer's normaliser may make of one.
        max_template_seconds: Longest time that a chat template may take to render a prompt.

    Raises:
        ValueError: A limit is below 1 and would allow nothing.
    """

    max_pixels: int = 100_000_000
    max_aspect: float = 200.0
    max_file_bytes: int = 2 * 1024**3
    max_containers: int = 16_000_000
    max_line_bytes: int = 16 * 1024**2
    max_line_values: int = 100_000
    max_lines: int = 10_000_000
    max_yaml_bytes: int = 100_000
    max_yaml_values: int = 20_000
    max_sets: int = 100
    max_problems: int = 10_000
    max_phrases: int = 1_000
    max_text: int = 200_000
    max_mask_pixels: int = 400_000_000
    max_outline: int = 4_000_000
    max_run_letters: int = 8_000_000
    max_resized_pixels: int = 20_000_000
    max_config_bytes: int = 100_000_000
    max_decoder_bytes: int = 1024**3
    max_layers: int = 10_000
    max_canvas: int = 1024
    max_text_growth: int = 100
    max_template_seconds: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)} allows nothing. Give 1 or more.")


DEFAULT_LIMITS = Limits()


class _Shown(Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxlong = self.maxother = 80
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 4

    def repr_int(self, value: int, level: int) -> str:
        """An integer; of a long one, which Python refuses to write out, its size."""
        bits = value.bit_length()
        return super().repr_int(value, level) if bits < 3 * _MOST_DIGITS else f"<an integer of {bits} bits>"

    def repr_bytes(self, value: bytes, _: int) -> str:
        """Bytes, cut before they are written out."""
        return repr(value) if len(value) <= self.maxother else f"{value[: self.maxother]!r}..."


_SHOWN = _Shown()


def shown(value: object, most: int = 80) -> str:
    """Show a value for a message: one line of bounded length, made in bounded time, without control characters.

    Args:
        value: Whatever a file, a prompt or a caller held.
        most: Most characters of a text that are shown.

    Returns:
        As `repr` writes it, with `...` where something was left out.
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= most else f"{value[:most]!r}..."
    text = " ".join(_SHOWN.repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the most similar of the known words, with a space before it; empty if none is similar."""
    if len(word) > _LONGEST_WORD:  # its comparison takes time by its length
        return ""
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def plain(text: str) -> str:
    r"""Keep a text to one line that a terminal shows as it is, and no more.

    Args:
        text: Whatever a person, a file or a name of a file held.

    Returns:
        The text with an escape such as `\x1b` for every character that moves a cursor, ends a line, turns the reading
        direction or cannot be encoded.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_plain(letter) else letter.encode("unicode_escape").decode() for letter in text)


def _is_plain(letter: str) -> bool:
    """Whether a character does no more than to be shown; the two joiners shape letters and emoji."""
    return letter in "\u200c\u200d" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
