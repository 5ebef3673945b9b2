"""`adapters ground` and `attend` with a question: answered by the model, or elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_adapters import Message, Prompt, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.prompt import DESCRIBE_QUESTION

SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
Run = Callable[..., int]


@pytest.fixture
def image(tmp_path: Path) -> str:
    SCENE.image.save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


@pytest.fixture(scope="module")
def answer() -> Any:
    question = Prompt((Message("user", (SCENE.image, DESCRIBE_QUESTION)),))
    adapter: Any = load_adapter("tiny-qwen2_5_vl", device="cpu")
    return adapter.generate(question)


def grounded(
    adapters: Run, capsys: pytest.CaptureFixture[str], image: str, *options: str, command: str = "ground"
) -> Any:
    out = str(Path(image).parent / "out")
    assert adapters(command, image, *options, "--device", "cpu", "--out", out, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["ground", "attend"])
def test_what_the_model_answers_is_read_by_its_tokens(
    command: str, image: str, answer: Any, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    report = grounded(adapters, capsys, image, "--ask", DESCRIBE_QUESTION, command=command)
    assert report["answer"] == {"text": answer.text, "ids": [*answer.ids], "divergence": None}
    assert report["text"] == answer.text
    assert len(report["phrases"]) == 1


def test_an_answer_from_a_file_is_read_by_its_tokens(
    image: str, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_adapter("tiny-qwen2_5_vl", device="cpu").processor.tokenizer  # type: ignore[attr-defined]
    ids = [id_ for letter in SCENE.text for id_ in tokenizer(letter)["input_ids"]]
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"text": SCENE.text, "ids": ids, "model": "another engine"}), encoding="utf-8")
    phrase = SCENE.phrases[0].text
    options = "--ask", DESCRIBE_QUESTION, "--answer", str(file), "--phrase", phrase
    report = grounded(adapters, capsys, image, *options)
    assert report["answer"] == {"text": SCENE.text, "ids": ids, "divergence": None}
    assert [found["text"] for found in report["phrases"]] == [phrase]


@pytest.mark.parametrize("command", ["ground", "attend"])
def test_the_divergence_of_an_answer_that_is_a_text_is_shown(
    command: str, image: str, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a red thing and nothing else"
    report = grounded(adapters, capsys, image, text, "--ask", DESCRIBE_QUESTION, command=command)
    divergence = report["answer"]["divergence"]
    assert report["answer"]["ids"] is None
    assert divergence["differing"] > 0
    out = str(Path(image).parent / "out")
    assert adapters(command, image, text, "--ask", DESCRIBE_QUESTION, "--device", "cpu", "--out", out) == 0
    printed = " ".join(capsys.readouterr().out.split())
    first = text[slice(*divergence["first"])]
    counted = f"likelier than {divergence['differing']} of {divergence['tokens']} tokens, first in {first!r}"
    assert f"answer: {text!r}" in printed
    assert counted in printed


def test_mistakes_with_questions_are_one_line(
    image: str, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, blank = tmp_path / "broken.json", tmp_path / "blank.json"
    broken.write_text('{"text": "a", "ids": "b"}', encoding="utf-8")
    blank.write_text('{"text": " "}', encoding="utf-8")
    ask = "--ask", DESCRIBE_QUESTION
    for arguments, message in (
        ([], "Give TEXT, or a question: --ask QUESTION."),
        (["--answer", str(blank)], "Give --ask, and no TEXT."),
        (["a cat", *ask, "--answer", str(blank)], "Give --ask, and no TEXT."),
        ([*ask, "--answer", str(blank)], "The answer is blank"),
        ([*ask, "--answer", str(broken)], "is not a JSON file of an answer: ids"),
        ([*ask, "--answer", str(tmp_path / "none.json")], "No JSON file of an answer can be read"),
        (["--ask", " "], "The question is blank"),
        (["a cat", *ask, "--phrase", "a dog"], "'a dog' is not in the text 'a cat'"),
    ):
        assert adapters("ground", image, *arguments, "--out", str(tmp_path / "out")) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_a_phrase_that_the_model_does_not_say_is_an_error(
    image: str, answer: Any, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--ask", DESCRIBE_QUESTION, "--phrase", "a dog", "--device", "cpu"
    assert adapters("ground", image, *options, "--out", str(Path(image).parent / "out")) == 1
    assert f"The phrase 'a dog' is not in the text {answer.text!r}" in capsys.readouterr().err
