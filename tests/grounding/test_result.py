"""A grounding as a sequence of its phrases, equal by its content, that shows itself."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from vlm_adapters.errors import OutputError, PhraseError
from vlm_adapters.grounding.result import Grounding, PackedMask, PhraseMap, grounded_phrase
from vlm_adapters.output.figures import grounding_figure
from vlm_adapters.prompt import Phrase

TEXT = "a cat and a dog"


def grounding(corner: int = 2, text: str = TEXT, words: tuple[str, ...] = ("a cat", "a dog")) -> Grounding:
    """Each phrase in a square of 4 pixels, from `corner` on."""
    probability = np.zeros((20, 30), np.float32)
    probability[corner : corner + 4, 3:7] = 0.9
    attention = PhraseMap(np.full((2, 3), 0.5, np.float32), (0, 0, 30, 20), (20, 30))
    phrases = tuple(grounded_phrase(Phrase.find(text, word), probability, attention) for word in words)
    return Grounding(Image.new("RGB", (30, 20), "white"), text, phrases)


def test_it_is_a_sequence_of_its_phrases() -> None:
    found = grounding()
    assert (len(found), list(found), found[-1]) == (2, list(found.phrases), found.phrases[1])
    with pytest.raises(IndexError):
        found[2]


def test_a_phrase_is_found_by_its_words() -> None:
    found = grounding()
    assert found["a dog"] is found.phrases[1]
    assert "a dog" in found
    assert found.phrases[1] in found
    assert "a" not in found
    with pytest.raises(PhraseError, match=r"No phrase is 'dog'\. The phrases are: \['a cat', 'a dog'\]"):
        found["dog"]


def test_words_that_are_two_phrases_are_not_guessed() -> None:
    found = grounding()
    twice = replace(found, phrases=(found.phrases[0],) * 2)
    with pytest.raises(PhraseError, match=r"2 phrases are 'a cat'\. Give an index: \[0, 1\]"):
        twice["a cat"]


def test_two_are_equal_by_image_masks_and_maps() -> None:
    assert grounding() == grounding()
    assert hash(grounding()) == hash(grounding())
    assert grounding() != grounding(corner=3)
    assert grounding() != replace(grounding(), image=Image.new("RGB", (30, 20), "black"))
    other_map = replace(grounding()[0], attention=PhraseMap(np.zeros((2, 3), np.float32), (0, 0, 30, 20), (20, 30)))
    assert grounding()[0] != other_map
    assert grounding() != "a cat"


def test_masks_with_the_same_box_differ_by_their_bits() -> None:
    full, hollow = np.ones((3, 3), np.bool_), np.ones((3, 3), np.bool_)
    hollow[1, 1] = False
    assert PackedMask.of(full) == PackedMask.of(full.copy())
    assert PackedMask.of(full) != PackedMask.of(hollow)
    assert PhraseMap.of_pixels(full) != PhraseMap.of_pixels(hollow)
    assert PhraseMap.of_pixels(full) == PhraseMap.of_pixels(full.copy())
    assert PhraseMap.of_pixels(full) != PhraseMap.of_pixels(full.astype(np.float32))


def test_it_is_one_line_with_what_was_found() -> None:
    assert repr(grounding()) == (
        "Grounding('a cat and a dog' by decoder in 30 x 20: 'a cat' 0.90 at (3, 2, 7, 6), 'a dog' 0.90 at (3, 2, 7, 6))"
    )
    assert str(grounding()[0]) == "'a cat' 0.90 at (3, 2, 7, 6)"
    assert len(repr(grounding(text=TEXT * 1000, words=()))) < 200


def test_a_notebook_and_a_file_show_its_figure(tmp_path: Path) -> None:
    expected = grounding_figure(grounding())
    grounding().save(tmp_path / "new" / "figure.png")
    for shown in (tmp_path / "new" / "figure.png", io.BytesIO(grounding()._repr_png_())):
        assert Image.open(shown).convert("RGB").tobytes() == expected.tobytes()


def test_a_figure_is_not_saved_under_a_name_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"does not end in \.png.*write_grounding"):
        grounding().save(tmp_path / "folder")


@pytest.mark.parametrize(("shell", "expected"), [(SimpleNamespace(kernel=1), Grounding), (None, Image.Image)])
def test_it_is_shown_in_the_notebook_or_else_in_a_window(
    shell: object, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    display = SimpleNamespace(display=lambda what: shown.append(type(what)))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(type(image)))
    grounding().show()
    assert shown == [expected]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_its_dict_is_json_with_masks_that_coco_reads() -> None:
    read = json.loads(json.dumps(grounding().to_dict()))
    assert (read["text"], read["image_size"], [one["text"] for one in read["phrases"]]) == (
        TEXT,
        [20, 30],
        ["a cat", "a dog"],
    )
    np.testing.assert_array_equal(coco.decode(read["phrases"][0]["mask"]).astype(bool), grounding()[0].mask)
