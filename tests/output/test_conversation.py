"""The files of a conversation, and the form of GLaMM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_adapters import Answer, Grounding, Message, Phrase, Prompt
from vlm_adapters.data.rle import decode_rle
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding import PhraseMap, Turn, grounded_phrase
from vlm_adapters.output import ConversationFiles, gcg_result, gcg_text

TEXT = "A cat,  left of\na mat."
FILES = {"overlay.png", "figure.png", "masks.png", "coco.json", "gcg.json", "grounding.json"}


def grounding(*spans: tuple[int, int], text: str = TEXT) -> Grounding:
    """Phrases of which the mask of the number `i` covers the first `i + 1` rows."""
    phrases = []
    for index, span in enumerate(spans):
        probability = np.zeros((4, 6), np.float32)
        probability[: index + 1] = 0.9
        phrases.append(grounded_phrase(Phrase.at(text, *span), probability, PhraseMap.of_pixels(probability)))
    return Grounding(Image.new("RGB", (6, 4)), text, tuple(phrases), answer=Answer(text, [1]))


def turn(*groundings: Grounding) -> Turn:
    question = Message("user", (Image.new("RGB", (6, 4)), "What?"))
    return Turn(Prompt.chat([question]).answered(Answer(TEXT, [1])), groundings)


FOUND = grounding((0, 5), (16, 21))


def read(out: Path) -> list[tuple[str, list[str]]]:
    turns = json.loads((out / "chat.json").read_text(encoding="utf-8"))["turns"]
    assert [one["answer"] for one in turns] == [{"text": TEXT, "ids": [1], "divergence": None}] * len(turns)
    return [(one["question"], one["folders"]) for one in turns]


def test_every_turn_has_a_folder_per_image(tmp_path: Path) -> None:
    files = ConversationFiles(tmp_path, ["one", "two"])
    assert files.add(turn(FOUND)) == [tmp_path / "turn_01"]
    assert read(tmp_path) == [("What?", ["turn_01"])]
    files.add(turn(FOUND, FOUND))
    assert files.add(turn()) == []
    assert read(tmp_path) == [("What?", ["turn_01"]), ("What?", ["turn_02_image_1", "turn_02_image_2"]), ("What?", [])]
    for folder, image in (("turn_01", "one"), ("turn_02_image_1", "one"), ("turn_02_image_2", "two")):
        assert {path.name for path in (tmp_path / folder).iterdir()} == FILES | {"mask_00.png", "mask_01.png"}
        assert json.loads((tmp_path / folder / "gcg.json").read_text(encoding="utf-8"))["image_id"] == image


def test_an_earlier_conversation_is_removed_with_the_first_turn(tmp_path: Path) -> None:
    earlier = ConversationFiles(tmp_path, ["one"])
    for _ in range(3):
        earlier.add(turn(FOUND))
    (tmp_path / "turn_02" / "notes.txt").touch()
    (tmp_path / "turn_04").mkdir()
    (tmp_path / "turn_04" / "mask_00.png").touch()  # of nobody's grounding
    files = ConversationFiles(tmp_path, ["one"])
    assert len(read(tmp_path)) == 3
    files.add(turn(FOUND))
    assert read(tmp_path) == [("What?", ["turn_01"])]
    assert not (tmp_path / "turn_03").exists()
    assert [path.name for path in (tmp_path / "turn_02").iterdir()] == ["notes.txt"]
    assert (tmp_path / "turn_04" / "mask_00.png").exists()


def test_folders_of_a_place_without_a_conversation_are_somebody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "turn_07"
    folder.mkdir()
    for name in ("overlay.png", "mask_00.png"):
        (folder / name).touch()
    ConversationFiles(tmp_path, ["one"]).add(turn(FOUND))
    assert {path.name for path in folder.iterdir()} == {"overlay.png", "mask_00.png"}


def test_the_form_of_glamm() -> None:
    found = grounding((16, 21), (0, 5))
    result = gcg_result(found, 17)
    assert list(result) == ["image_id", "caption", "phrases", "pred_masks"]
    assert (result["image_id"], result["caption"]) == ("17", "A cat, left of a mat.")
    assert result["phrases"] == ["A cat", "a mat"]
    assert [int(decode_rle(mask).sum()) for mask in result["pred_masks"]] == [12, 6]
    assert gcg_text(found) == "<p> A cat </p> [SEG],  left of\n<p> a mat </p> [SEG]."


def test_phrases_within_each_other_cannot_be_written() -> None:
    with pytest.raises(OptionError, match="'cat' shares words with the one before it"):
        gcg_text(grounding((0, 5), (2, 5)))
