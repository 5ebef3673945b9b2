"""A command line that is not understood: exit code 2, and one line that says what to write in its place."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from vlm_adapters.cli import COMMANDS, app
from vlm_adapters.data.formats.scenes import Scenes

Run = Callable[..., int]
RUN = "from vlm_adapters.cli import main; main()"
MISTAKES = {
    "groud": ("No such command 'groud'. Did you mean 'ground'?", "adapters"),
    "data chek": ("No such command 'chek'. Did you mean 'check'?", "adapters data"),
    "data": ("Missing command.", "adapters data"),
    "ground a.png text --modle x": ("No such option: --modle. Did you mean --model?", "adapters ground"),
    "ground": ("Missing argument 'IMAGE'.", "adapters ground"),
    "evaluate a b": ("Missing option '--protocol'. Choose from: isolated, packed.", "adapters evaluate"),
    "evaluate a b --protocol x": (
        "Invalid value for '--protocol': 'x' is not one of 'isolated', 'packed'.",
        "adapters evaluate",
    ),
    "ground a b --method x": (
        "Invalid value for '--method': 'x' is not one of 'auto', 'decoder', 'box', 'heads'.",
        "adapters ground",
    ),
    "train scenes --epochs 1": (
        "No such option: --epochs. Keys of a recipe are written without dashes: epochs=1.",
        "adapters train",
    ),
    "cache build scenes --batch-size=4": (
        "No such option: --batch-size. Keys of a recipe are written without dashes: batch_size=4.",
        "adapters cache build",
    ),
    "train scenes --ot run": ("No such option: --ot. Did you mean --out?", "adapters train"),
    "--json list": (
        "No such option: --json before the command. The options of a command follow it: adapters COMMAND --json.",
        "adapters",
    ),
    "scaffold perception_lm": ("Missing option '--out' / '-o'.", "adapters scaffold"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_usage_error_says_what_is_meant_and_whose_help_says_more(
    words: str, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters(*words.split()) == 2
    message, command = MISTAKES[words]
    assert capsys.readouterr().err == f"error: {message} See `{command} --help`.\n"


def test_an_error_is_json_too_where_json_was_requested(adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters("ground", "gone.png", "a cat", "--json") == 1
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert error["type"] == "ImageError"
    assert printed.err == f"error: {error['message']}\n"
    assert adapters("groud", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"
    assert adapters("ground", "gone.png", "a cat", "--out", "x", "--", "--json") == 2
    assert capsys.readouterr().out == ""


def test_a_phrase_that_differs_in_case_is_shown_as_it_is_in_the_text(
    adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scenes(1)[0].image.save(tmp_path / "scene.png")
    assert adapters("ground", str(tmp_path / "scene.png"), "a red circle", "-p", "A Red") == 1
    assert "It differs in case from 'a red'." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ground", "attend"])
def test_a_sentence_before_its_image_is_noticed(
    command: str, adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Scenes(1)[0].image.save(tmp_path / "scene.png")
    assert adapters(command, "a red circle", str(tmp_path / "scene.png")) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: There is no image 'a red circle', and TEXT is the file ")
    assert error.endswith(" Give the image first.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("info tiny-lava", "Did you mean 'tiny-llava'?"),
        ("train scens", "Did you mean 'scenes'?"),
        ("data check scnes:count=1", "Did you mean 'scenes'?"),
    ],
)
def test_names_that_are_nearly_right_are_suggested(
    words: str, message: str, adapters: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters(*words.split()) == 1
    assert message in capsys.readouterr().err


def test_yaml_that_is_wrong_is_located_by_line_and_column(
    adapters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("model: tiny-llava\ntrain: [scenes\nepochs: 2\n")
    assert adapters("train", str(tmp_path / "mine.yaml")) == 1
    assert "cannot be read as YAML: line 3, column 7: expected ',' or ']'" in capsys.readouterr().err


def commands() -> dict[str, Any]:
    """All commands that run something, by what a user types."""
    group: Any = typer.main.get_command(app)
    found = {name: group.commands[name] for name in COMMANDS}
    inner = {name: command for name, command in found.items() if hasattr(command, "commands")}
    within = {f"{name} {sub}": one for name, command in inner.items() for sub, one in command.commands.items()}
    return {name: command for name, command in found.items() if name not in inner} | within


def test_a_short_option_means_the_same_in_every_command() -> None:
    meanings = {
        (short, option)
        for command in commands().values()
        for parameter in command.params
        for short in parameter.opts
        for option in parameter.opts
        if short.startswith("-") and not short.startswith("--") and option.startswith("--")
    }
    assert meanings == {
        ("-a", "--ask"),
        ("-b", "--batch-size"),
        ("-d", "--device"),
        ("-m", "--model"),
        ("-o", "--out"),
        ("-p", "--phrase"),
        ("-q", "--quiet"),
        ("-v", "--verbose"),
        ("-vv", "--debug"),
    }
    lengths = {option: short for short, option in meanings}
    for name, command in commands().items():
        for parameter in command.params:
            for option in {*parameter.opts} & {*lengths}:
                assert lengths[option] in parameter.opts, f"{name}: {option} lacks {lengths[option]}"


@pytest.mark.parametrize("words", ["", "ground", "data", "data check"])
def test_h_shows_the_help(words: str, adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters(*words.split(), "-h") == 0
    assert f"Usage: adapters {words}" in capsys.readouterr().out


def test_the_overview_has_every_command_once(adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    adapters("--help")
    rows = [line.strip("│ ").split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("adapters gr", ["ground"]),
        ("adapters data c", ["check", "convert"]),
        ("adapters ground x.png text -m tiny-ll", ["tiny-llava"]),
        ("adapters train sc", ["scenes"]),
        ("adapters check qwen2_5_v", ["qwen2_5_vl"]),
        ("adapters evaluate m d --protocol p", ["packed"]),
    ],
)
def test_the_tab_key_completes_names(
    words: str, found: list[str], adapters: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_ADAPTERS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    adapters()
    assert capsys.readouterr().out.split() == found


def test_completion_does_not_import_torch() -> None:
    variables = {"_ADAPTERS_COMPLETE": "complete_bash", "COMP_WORDS": "adapters info tiny", "COMP_CWORD": "2"}
    script = f"""
import sys
sys.argv = ["adapters"]
try:
    {RUN}
except SystemExit:
    print(sorted({{"torch", "transformers", "numpy"}} & set(sys.modules)), file=sys.stderr)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert "tiny-llava" in done.stdout
    assert done.stderr == "[]\n"


class Piped(io.TextIOWrapper):
    """What a pipe brings to stdin."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


def test_an_image_may_come_from_stdin(
    adapters: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scenes(1)[0]
    scene.image.save(tmp_path / "scene.png")
    found = []
    for image in (str(tmp_path / "scene.png"), "-"):
        monkeypatch.setattr(sys, "stdin", Piped((tmp_path / "scene.png").read_bytes()))
        assert adapters("ground", image, scene.text, "-o", str(tmp_path / "out"), "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert json.loads((tmp_path / "out" / "coco.json").read_text())[0]["image_id"] == "stdin"


def test_an_image_on_stdin_leaves_no_room_for_questions(
    adapters: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Piped(b""))
    assert adapters("chat", "-") == 1
    assert "Give one: --ask QUESTION." in capsys.readouterr().err
    assert adapters("ground", "-", "a cat") == 1
    assert capsys.readouterr().err.startswith("error: The image of 0 bytes is empty.")
