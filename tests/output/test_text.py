"""Text in figures: no letter is a box, whatever fonts a system has; lines break and read as their script asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlm_adapters.errors import MissingFontWarning
from vlm_adapters.output import font_files, text
from vlm_adapters.output.font_files import FontFile, font_of
from vlm_adapters.output.text import breaks, draw_line, fitted, length

SHIPPED_LETTERS = "Üéßñçőž Ελληνικά ώ кошка їґўё Հայ ქართ שלום قطة … «»"
"""Of the scripts that the shipped font has."""

Pixels = NDArray[np.uint8]


@pytest.fixture
def only_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without a font."""
    monkeypatch.setattr(font_files, "_system_folders", list)
    monkeypatch.delenv("VLM_ADAPTERS_FONTS", raising=False)
    monkeypatch.setattr(font_files, "_SEARCH", font_files._Search())  # noqa: SLF001 - what was found before


def drawn(line: str, size: int = 20) -> Pixels:
    """A line in black, `(H, W)`."""
    canvas = Image.new("RGB", (1200, 40), "white")
    draw_line(canvas, (0, 0), line, size, [(0, 0, 0)] * len(line))
    return np.asarray(canvas.convert("L"))


def box_of_the_shipped_font(size: int = 20) -> Pixels:
    """What the font draws for what it lacks, cut to its ink, `(h, w)`."""
    canvas = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(canvas).text((5, 5), "\U0010ffff", 0, ImageFont.truetype(font_files.SHIPPED, size))
    ink = np.argwhere(np.asarray(canvas) < 128)
    (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
    return np.asarray(canvas)[top:bottom, left:right]


@pytest.mark.usefixtures("only_shipped")
@pytest.mark.filterwarnings("error")
def test_latin_greek_cyrillic_hebrew_and_arabic_need_no_font_of_the_system() -> None:
    for letter in SHIPPED_LETTERS.replace(" ", ""):
        assert font_of(letter) == FontFile(font_files.SHIPPED)


@pytest.mark.usefixtures("only_shipped")
def test_a_letter_that_no_font_has_is_its_number_and_never_a_box() -> None:
    with pytest.warns(MissingFontWarning):
        shown = drawn("水")
    assert np.array_equal(shown, drawn("[U+6C34]"))
    box = box_of_the_shipped_font()
    ink = np.argwhere(shown < 128)
    assert np.ptp(ink[:, 1]) > 3 * box.shape[1]


@pytest.mark.usefixtures("only_shipped")
def test_what_to_install_is_said_once_for_a_script() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        drawn("水火木 红")
        drawn("水")
    (warning,) = said
    assert str(warning.message) == (
        "No font has U+6C34 (CJK UNIFIED IDEOGRAPH-6C34): figures show the number of such letters in brackets. "
        "Install a font that has them, such as Noto Sans CJK (Debian: fonts-noto-cjk), or set VLM_ADAPTERS_FONTS to a "
        "font file or a folder of fonts."
    )


@pytest.mark.usefixtures("only_shipped")
@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.MissingFontWarning")
def test_a_script_without_a_font_is_searched_for_a_few_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(font_files.SHIPPED.read_bytes())
    monkeypatch.setenv("VLM_ADAPTERS_FONTS", str(tmp_path))
    looked: list[str] = []
    has: Callable[[FontFile, str], bool] = FontFile.has

    def counted(font: FontFile, letter: str) -> bool:
        looked.append(str(font.path))
        return has(font, letter)

    monkeypatch.setattr(FontFile, "has", counted)
    drawn("".join(chr(0x4E00 + index) for index in range(100)))
    assert looked.count(str(tmp_path / "a.ttf")) == 8


def test_fonts_of_the_variable_come_before_those_of_the_system_and_plain_ones_before_bold_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen, system = tmp_path / "chosen", tmp_path / "system"
    for folder, names in ((chosen, ["Mine.otf"]), (system, ["A-Bold.ttf", "B.ttf", "NotoSans.ttc", "notes.txt"])):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    monkeypatch.setenv("VLM_ADAPTERS_FONTS", str(chosen))
    monkeypatch.setattr(font_files, "_system_folders", lambda: [system, tmp_path / "gone"])
    assert [path.name for path in font_files.font_files()] == ["Mine.otf", "NotoSans.ttc", "B.ttf", "A-Bold.ttf"]


@pytest.mark.usefixtures("only_shipped")
@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.MissingFontWarning")
def test_a_damaged_font_file_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setenv("VLM_ADAPTERS_FONTS", str(tmp_path))
    assert font_of("水") is None


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_system_has_folders_of_fonts(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr("sys.platform", platform)
    folders = [str(folder) for folder in font_files._system_folders()]  # noqa: SLF001 - where it looks
    assert any("onts" in folder for folder in folders)


def test_a_line_is_as_long_as_its_ink_at_most() -> None:
    for line in ("a pink star", "красный круг", "שלום"):
        ink = np.argwhere(drawn(line) < 128)
        assert ink[:, 1].max() <= length(line, 20) + 1


def test_lines_break_between_words_and_lose_no_letter() -> None:
    line = "one two three four, five; six"
    parts = breaks(line, 20, 110)
    assert "".join(line[start:end] for start, end in parts) == line
    assert all(length(line[start:end].rstrip(), 20) <= 110 for start, end in parts)
    assert all(line[end - 1] == " " for _, end in parts[:-1])


def test_a_word_longer_than_a_line_and_ideographs_break_anywhere() -> None:
    assert len(breaks("x" * 100, 20, 110)) > 5
    with warnings.catch_warnings(action="ignore", category=MissingFontWarning):
        parts = breaks("左边的红色圆圈。右边", 20, 110)
    assert len(parts) > 1
    assert all(start != 7 for start, _ in parts)  # a full stop begins no line


def test_marks_stay_with_their_letters() -> None:
    word = "e\u0301" * 60
    assert all(start % 2 == 0 for start, _ in breaks(word, 20, 110))


def test_a_text_of_too_many_lines_ends_with_an_ellipsis_that_fits() -> None:
    lines = fitted("one two three four five six seven eight", 20, 110, 2)
    assert len(lines) == 2
    assert lines[1].endswith("…")
    assert length(lines[1], 20) <= 110


def places(line: str, *, to_left: bool = False) -> str:
    """The letters of a line from left to right, told by their colours; spaces that bear no ink are left out."""
    colours = [(index + 1, 0, 0) for index in range(len(line))]
    order = draw_line(Image.new("RGB", (1200, 40), "white"), (0, 0), line, 20, colours, to_left=to_left)
    return "".join(line[colour[0] - 1] for _, _, colour in order)


def test_words_are_in_the_order_of_their_script() -> None:
    assert places("ab שלום cd") == "ab םולש cd"
    assert places("שלום 12 ab", to_left=True) == "ab 12 םולש"
    assert places("אב 12 גד") == "דג 12 בא"


def test_without_libraqm_hebrew_is_still_read_from_right_to_left(monkeypatch: pytest.MonkeyPatch) -> None:
    text._run_width.cache_clear()  # noqa: SLF001 - widths by direction
    expected = drawn("שלום")
    monkeypatch.setattr(text, "_shapes", lambda: False)
    basic = ImageFont.Layout.BASIC
    monkeypatch.setattr(FontFile, "at", lambda font, size: ImageFont.truetype(font.path, size, layout_engine=basic))
    text._run_width.cache_clear()  # noqa: SLF001
    shown, mirrored = drawn("שלום").astype(int), drawn("םולש").astype(int)
    text._run_width.cache_clear()  # noqa: SLF001
    assert np.abs(shown - expected).sum() < 0.6 * np.abs(mirrored - expected).sum()  # kerning differs
