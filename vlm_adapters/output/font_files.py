"""Fonts: for every letter the first that has it, of the one shipped here and those of the system."""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

from vlm_adapters.errors import MissingFontWarning

FONTS_VARIABLE = "VLM_ADAPTERS_FONTS"
"""Environment variable with font files, or folders of them, that are looked into before those of the system."""

SHIPPED = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
"""DejaVu Sans: Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew, Arabic, and signs."""

_MOST_FONTS = 500
"""How many font files of a system are looked into, the plainest first."""

_MOST_SEARCHES = 8
"""Letters of a script that no font has, after which the others of that script are not searched for."""

_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "serif", "condensed", "narrow")
_BITMAP_SIZES = (109, 136, 160)
"""The sizes of Noto Color Emoji and of Apple's; other fonts are drawn at any size."""

_BEYOND = "\U0010ffff"
"""A code point that is no letter, in place of which a font draws its sign for what it lacks."""

_PACKAGES = {
    "CJK": "Noto Sans CJK (Debian: fonts-noto-cjk)",
    "HIRAGANA": "Noto Sans CJK (Debian: fonts-noto-cjk)",
    "KATAKANA": "Noto Sans CJK (Debian: fonts-noto-cjk)",
    "HANGUL": "Noto Sans CJK (Debian: fonts-noto-cjk)",
}
_OTHERS, _SYMBOLS = "Noto Sans (Debian: fonts-noto-core)", "Noto Color Emoji (Debian: fonts-noto-color-emoji)"


@dataclass(frozen=True)
class FontFile:
    """A font file.

    Attributes:
        path: Where it is.
        bitmap_size: The one size of its letters, in pixels; None where they are outlines, drawn at any size.
    """

    path: Path
    bitmap_size: int | None = None

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """The font for letters of this size, in pixels; a bitmap font is opened at the size that it has."""
        return _opened(self.path, self.bitmap_size or size)

    def has(self, letter: str) -> bool:
        """Whether it has a letter, by what is drawn for it."""
        return _drawn(self.path, self.bitmap_size or 16, letter) != _drawn(self.path, self.bitmap_size or 16, _BEYOND)


def font_of(letter: str) -> FontFile | None:
    """The first font that has a letter; None, after a warning, where none has."""
    return shipped_font() if letter.isascii() else _SEARCH.font_of(letter)


@cache
def shipped_font() -> FontFile:
    """The font that is shipped with this library."""
    return FontFile(SHIPPED)


def font_files() -> list[Path]:
    """The font files of `VLM_ADAPTERS_FONTS`, and then those of the system, the plainest first."""
    chosen = [Path(part) for part in os.environ.get(FONTS_VARIABLE, "").split(os.pathsep) if part]
    return [*_within(chosen), *_within(_system_folders())][:_MOST_FONTS]


class _Search:
    """What was found in the fonts of the system, so that each letter is searched for once."""

    def __init__(self) -> None:
        self._files: list[FontFile] | None = None
        self._found: dict[str, FontFile | None] = {}
        self._lacking: Counter[str] = Counter()

    def font_of(self, letter: str) -> FontFile | None:
        if letter not in self._found:
            self._found[letter] = self._search(letter)
        return self._found[letter]

    def _search(self, letter: str) -> FontFile | None:
        if shipped_font().has(letter):
            return shipped_font()
        script = unicodedata.name(letter, "?").split()[0].split("-")[0]
        if self._files is None:
            self._files = list(_readable(font_files()))
        known = [font for font in dict.fromkeys(self._found.values()) if font]
        searched = self._files if self._lacking[script] < _MOST_SEARCHES else []
        for font in (*known, *searched):
            if font.has(letter):
                return font
        self._lacking[script] += 1
        if self._lacking[script] == 1:
            _warn(letter, script)
        return None


_SEARCH = _Search()


def _warn(letter: str, script: str) -> None:
    by_category = _SYMBOLS if unicodedata.category(letter) == "So" else _OTHERS
    package = _PACKAGES.get(script, by_category)
    warnings.warn(
        f"No font has U+{ord(letter):04X} ({unicodedata.name(letter, 'a letter without a name')}): figures show the "
        f"number of such letters in brackets. Install a font that has them, such as {package}, "
        f"or set {FONTS_VARIABLE} to a font file or a folder of fonts.",
        MissingFontWarning,
        stacklevel=2,
    )


def _readable(paths: list[Path]) -> Iterator[FontFile]:
    """Yield the fonts that can be opened."""
    for path in paths:
        for size in (None, *_BITMAP_SIZES):
            try:
                _opened(path, size or 16)
            except OSError:
                continue
            yield FontFile(path, size)
            break


def _within(paths: list[Path]) -> list[Path]:
    """The font files among paths and in folders among them, upright sans-serif ones first."""
    files = {path for path in paths if path.is_file()}
    for folder in paths:
        for parent, _, names in os.walk(folder):
            files |= {Path(parent, name) for name in names}
    return sorted((path for path in files if path.suffix.lower() in _SUFFIXES), key=_plainness)


def _plainness(path: Path) -> tuple[bool, bool, str]:
    name = path.stem.lower()
    return any(style in name for style in _STYLES), "sans" not in name, str(path)


def _system_folders() -> list[Path]:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        folders = [Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")]
        return [*folders, Path(local, "Microsoft", "Windows", "Fonts")] if local else folders
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library" / "Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [Path(part, "fonts") for part in shared.split(":") if part]
    return [*folders, Path.home() / ".local" / "share" / "fonts", Path.home() / ".fonts"]


@lru_cache(maxsize=128)
def _opened(path: Path, size: int, *, shaped: bool = True) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=None if shaped else ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _drawn(path: Path, size: int, letter: str) -> tuple[tuple[int, int], bytes]:
    """What a font draws for a letter: its size and its pixels."""
    drawn = _opened(path, size, shaped=False).getmask(letter)
    return drawn.size, bytes(drawn)
