"""`adapters chat`: questions from options and from stdin, what is printed, and what is written."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vlm_adapters import GroundedChat, Message, Prompt, load_grounder
from vlm_adapters.cli import chat_command
from vlm_adapters.cli.printing import marked
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.errors import PromptError
from vlm_adapters.prompt import DESCRIBE_QUESTION

SCENES = Scenes(2, seed=HELD_OUT_SEED)
Run = Callable[..., int]


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"scene{index}.png") for index in range(2)]
    for name, scene in zip(names, SCENES, strict=True):
        scene.image.save(name)
    return names


@pytest.fixture(scope="module")
def turn() -> Any:
    return GroundedChat(load_grounder("tiny-qwen2_5_vl", device="cpu")).ask(DESCRIBE_QUESTION, [SCENES[0].image])


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[io.StringIO], None]:
    return lambda file: monkeypatch.setattr(sys, "stdin", file)


def test_a_question_from_a_pipe_is_answered_and_grounded(
    images: list[str], turn: Any, stdin: Any, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(io.StringIO(f"\n {DESCRIBE_QUESTION}\n"))
    out = tmp_path / "out"
    assert adapters("chat", images[0], "--device", "cpu", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert f"question: {DESCRIBE_QUESTION}\nanswer: {turn.answer.text}\n" in printed
    assert "\x1b" not in printed
    report = json.loads((out / "turn_01" / "grounding.json").read_text(encoding="utf-8"))
    assert report["answer"]["ids"] == [*turn.answer.ids]
    expected = [(phrase.phrase.text, phrase.run_lengths) for phrase in turn.groundings[0].phrases]
    assert [(found["text"], found["mask"]) for found in report["phrases"]] == expected
    assert all(text in printed for text, _ in expected)


def test_every_turn_is_a_line_of_json(
    images: list[str], turn: Any, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = "--ask", DESCRIBE_QUESTION, "--ask", DESCRIBE_QUESTION
    out = tmp_path / "out"
    assert adapters("chat", images[0], *ask, "--json", "--device", "cpu", "--out", str(out)) == 0
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [found["question"] for found in lines] == [DESCRIBE_QUESTION] * 2
    assert lines[0]["answer"] == {"text": turn.answer.text, "ids": [*turn.answer.ids], "divergence": None}
    assert lines[0]["groundings"][0]["folder"] == str(out / "turn_01")
    assert len(json.loads((out / "chat.json").read_text(encoding="utf-8"))["turns"]) == 2


def test_several_images_have_a_folder_each(
    images: list[str], adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--ask", DESCRIBE_QUESTION, "--device", "cpu", "--out", str(tmp_path / "out")
    assert adapters("chat", *images, *options) == 0
    printed = capsys.readouterr().out
    assert [f"in {image}:" in printed for image in images] == [True, True]
    assert (tmp_path / "out" / "turn_01_image_2" / "overlay.png").exists()


def test_somebody_who_types_can_type_again_after_a_mistake(
    images: list[str],
    stdin: Any,
    adapters: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdin(Terminal(f"\nWhat?\n{DESCRIBE_QUESTION}\n"))
    ask = GroundedChat.ask

    def fails_once(chat: GroundedChat, question: str, *arguments: Any, **options: Any) -> Any:
        if question == "What?":
            raise PromptError("It cannot be answered.")
        return ask(chat, question, *arguments, **options)

    monkeypatch.setattr(GroundedChat, "ask", fails_once)
    out = tmp_path / "out"
    assert adapters("chat", images[0], "--device", "cpu", "--out", str(out)) == 0
    assert "error: It cannot be answered.\n" in capsys.readouterr().err
    assert len(json.loads((out / "chat.json").read_text(encoding="utf-8"))["turns"]) == 1


def test_a_terminal_shows_the_phrases_in_colours(
    images: list[str], turn: Any, adapters: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, color_system="truecolor", width=400, markup=False)
    monkeypatch.setattr(chat_command, "console", lambda **_: terminal)
    options = "--ask", DESCRIBE_QUESTION, "--device", "cpu", "--out", str(tmp_path / "out")
    assert adapters("chat", images[0], *options) == 0
    first = turn.prompt.phrases[0].text
    assert f"\x1b[1;38;2;213;94;0m{first}\x1b[0m" in shown.getvalue()


def test_an_answer_cannot_command_a_terminal() -> None:
    text = "a \x1b[31mred\x07 star\nand [bold]a cross[/bold]"
    prompt = Prompt.chat([Message("user", (SCENES[0].image, "What?"))]).answered(text, [(0, 16)])
    shown = marked(prompt.text, chat_command.colours_of(prompt))
    assert [span.style for span in shown.spans] == ["bold rgb(213,94,0)"]
    assert shown.plain == "a \\x1b[31mred\\x07 star\nand [bold]a cross[/bold]"


def test_mistakes_are_one_line(
    images: list[str], stdin: Any, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        ([images[0], "--ask", " "], "The question is blank"),
        ([str(tmp_path / "none.png"), "--ask", "What?"], "none.png"),
        ([images[0]], "There is no question. Give one: --ask QUESTION, or a line of stdin."),
    ):
        stdin(io.StringIO("\n"))
        assert adapters("chat", *arguments, "--device", "cpu", "--out", str(out)) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert len(error.strip().splitlines()) == 1
    assert not out.exists()
