"""Images with sentences, from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vlm_adapters.data.formats.captioned import read_captioned
from vlm_adapters.errors import DataError, ImageError, PhraseError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(("b.png", "a.jpg", "c.png")):
        Image.new("RGB", (20 + index, 10)).save(tmp_path / name)
    (tmp_path / "b.txt").write_text("[a red circle] left of [a blue star] .\n")
    (tmp_path / "a.txt").write_text("two dogs on a beach")
    return tmp_path


def test_every_image_with_a_sentence_is_read_in_order(folder: Path) -> None:
    plain, marked = read_captioned(folder)
    assert [prompt.images[0].width for prompt in (plain, marked)] == [21, 20]
    assert [phrase.text for phrase in plain.phrases] == ["two dogs on a beach"]
    assert marked.text == "a red circle left of a blue star ."
    assert [(phrase.text, phrase.span) for phrase in marked.phrases] == [
        ("a red circle", (0, 12)),
        ("a blue star", (21, 32)),
    ]


def test_a_phrase_may_occur_twice(folder: Path) -> None:
    (folder / "a.txt").write_text("[a dot] on [a dot]")
    assert [phrase.span for phrase in read_captioned(folder)[0].phrases] == [(0, 5), (9, 14)]


def test_a_folder_without_sentences_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sentence"):
        read_captioned(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"), [((), "found: none"), (("d.jpg", "d.png"), r"found: d\.jpg, d\.png")], ids=["none", "two"]
)
def test_a_sentence_needs_one_image(folder: Path, names: tuple[str, ...], message: str) -> None:
    (folder / "d.txt").write_text("a dog")
    for name in names:
        Image.new("RGB", (9, 9)).save(folder / name)
    with pytest.raises(DataError, match=message):
        read_captioned(folder)


def test_damaged_files_and_blank_phrases_are_reported(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="UTF-8"):
        read_captioned(folder)
    (folder / "a.txt").write_text("a dog [ ] here")
    with pytest.raises(PhraseError):
        read_captioned(folder)
    (folder / "a.txt").write_text("a dog")
    (folder / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError):
        read_captioned(folder)
