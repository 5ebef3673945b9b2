"""Where the prompts of a run over many images come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vlm_adapters.answer import Answer
from vlm_adapters.bulk import open_prompts, prompt_of
from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import DataError, ImageError, OptionError, PhraseError, PromptError
from vlm_adapters.prompt import DESCRIBE_QUESTION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "below/c.PNG", ".hidden.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 24)).save(tmp_path / name)
    return tmp_path


def write(folder: Path, *lines: object) -> str:
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def test_a_folder_gives_its_images_by_name(folder: Path) -> None:
    prompts = open_prompts(str(folder), "a red dog", ["dog"])
    assert [prompts.id(index) for index in range(len(prompts))] == ["a.jpg", "b.png", "below/c.PNG"]
    assert prompts.read(2).phrases[0].span == (6, 9)


def test_a_folder_without_a_text_shows_the_question(folder: Path) -> None:
    prompts = open_prompts(str(folder))
    assert not prompts.has_text
    assert prompts.read(0).text == DESCRIBE_QUESTION
    assert prompts.read(0).phrases == ()


def test_one_image_is_a_source_too(folder: Path) -> None:
    prompts = open_prompts(str(folder / "b.png"), "a red dog")
    assert [prompts.id(index) for index in range(len(prompts))] == ["b.png"]


def test_a_folder_without_images_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="There is no image in the folder"):
        open_prompts(str(folder / "empty"), "a red dog")


def test_a_phrase_that_is_not_in_the_text_shows_at_once(folder: Path) -> None:
    with pytest.raises(PhraseError, match="'cat' is not in the text"):
        open_prompts(str(folder), "a red dog", ["cat"])


def test_a_line_has_all_that_a_prompt_has(folder: Path) -> None:
    prompts = open_prompts(
        write(
            folder,
            {"image": "a.jpg", "text": "a dog", "phrases": ["dog", [0, 5]], "id": "first"},
            {"image": "below/c.PNG", "text": "a dog", "ask": "What is it?", "ids": [1, 2]},
            {"image": "b.png"},
        )
    )
    assert [prompts.id(index) for index in range(len(prompts))] == ["first", "below/c.PNG", "b.png"]
    first, second, third = (prompts.read(index) for index in range(3))
    assert [phrase.span for phrase in first.phrases] == [(2, 5), (0, 5)]
    assert second.answer == Answer("a dog", (1, 2))
    assert second.question.text == "What is it?"
    assert [phrase.text for phrase in second.phrases] == ["a dog"]
    assert third.text == DESCRIBE_QUESTION


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "../a.jpg"}, r"lines\.jsonl:2: .*outside the folder"),
        ({"image": "a.jpg", "text": "a dog", "phrases": ["cat"]}, r"lines\.jsonl:2: .*'cat' is not in the text"),
        ({"image": "a.jpg", "ids": [1]}, r"lines\.jsonl:2: .*Give ask and text"),
        ({"image": "a.jpg", "phrases": ["dog"]}, r"lines\.jsonl:2: .*phrases and no text"),
        ({"picture": "a.jpg"}, r"lines\.jsonl:2: picture: .* Broken lines: 1"),
    ],
)
def test_a_broken_line_is_named(folder: Path, line: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_prompts(write(folder, {"image": "a.jpg"}, line))


def test_a_missing_image_shows_when_it_is_read(folder: Path) -> None:
    prompts = open_prompts(write(folder, {"image": "gone.png"}))
    with pytest.raises(ImageError, match="does not exist"):
        prompts.read(0)


def test_a_data_set_has_its_own_texts() -> None:
    scenes = open_dataset("scenes:count=2,seed=4")
    prompts = open_prompts("scenes:count=2,seed=4")
    assert [prompts.read(index).text for index in range(2)] == [scene.text for scene in scenes]
    with pytest.raises(OptionError, match="has its own texts"):
        open_prompts("scenes:count=2,seed=4", "a red dog")


def test_the_fingerprint_changes_with_a_text_and_with_the_size_of_an_image(folder: Path) -> None:
    before = open_prompts(str(folder), "a red dog").fingerprint()
    assert open_prompts(str(folder), "a red dog").fingerprint() == before
    assert open_prompts(str(folder), "a red cat").fingerprint() != before
    Image.new("RGB", (320, 240)).save(folder / "a.jpg")
    assert open_prompts(str(folder), "a red dog").fingerprint() != before


def test_ids_without_a_question_are_an_error() -> None:
    with pytest.raises(PromptError, match="Give ask and text"):
        prompt_of(Image.new("RGB", (32, 24)), "a dog", ids=[1])
