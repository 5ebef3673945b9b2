"""Text of a person is text, in whatever a command prints."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import vlm_adapters.cli
from vlm_adapters.cli.printing import line, print_json, stacked, styled
from vlm_adapters.cli.tables import print_facts, print_grounding, print_rows
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.grounding.result import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.limits import plain
from vlm_adapters.prompt import Phrase

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = Path(vlm_adapters.cli.__file__).parent
HOSTILE = (
    "[bold]x[/bold]",
    "a [/x] circle",
    "[link=https://example.org]here[/link]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\u202etxt.exe",
    "\u2066a\u2069",
    "a\nerror: forged",
    "a\r\x08\x7fb",
    "a\u2028b",
    ":smile:",
    "\udcff.png",
    "<b>x</b> | y",
    "\\[bold]",
    "a\tb",
)
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=[]), min_size=1, max_size=30),
    st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=3).map("".join),
)
generated = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def harmless(printed: str) -> bool:
    """Whether a terminal would only show it: nothing but characters, and the ends of our own lines."""
    turning = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    categories = {unicodedata.category(letter) for letter in printed.replace("\n", "")}
    return not categories & {"Cc", "Cs", "Zl", "Zp"} and not set(printed) & set(turning)


@generated
@given(TEXTS)
def test_a_text_is_printed_as_one_line_with_escapes_and_nothing_is_read_into_it(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    line(text, style="red")
    printed = capsys.readouterr().out
    assert printed == plain(text) + "\n"
    assert harmless(printed)
    assert len(printed.splitlines()) == 1


@given(
    st.text(st.characters(categories=["L", "M", "N", "P", "S"]) | st.sampled_from(" \u00a0\u3000\u200d"), max_size=50)
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@generated
@given(TEXTS, TEXTS, TEXTS)
def test_tables_show_every_cell_and_read_no_markup(
    capsys: pytest.CaptureFixture[str], title: str, heading: str, value: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "2000")
        print_rows(title, (heading, "second"), [(value, stacked((value, "below")))])
        print_facts(title, [(heading, value)])
        print_rows(None, (heading,), [(styled(value, "green"),)])
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert len(printed.splitlines()) == 5 + 3 + 2
    for text in (title, heading, value):
        assert plain(text).strip() in printed


@generated
@given(TEXTS, TEXTS)
def test_a_grounding_is_printed_whatever_its_phrases_and_files_are_called(
    capsys: pytest.CaptureFixture[str], words: str, name: str
) -> None:
    mask = np.zeros((4, 6), np.bool_)
    found = GroundedPhrase(Phrase(words, 0, len(words)), PackedMask.of(mask), 0.0, PhraseMap.of_pixels(mask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "2000")
        print_grounding(Grounding(Image.new("RGB", (6, 4)), words, (found,)), [Path("out") / name.replace("/", "")])
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert len(printed.splitlines()) == 3


@given(TEXTS)
def test_json_comes_back_as_it_was_and_is_harmless(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr(sys, "stdout", type("Sink", (), {"write": lambda _, part: written.append(part)})())
        print_json({text: [text]})
    assert json.loads("".join(written)) == {text: [text]}
    assert harmless("".join(written))
    assert "".join(written).isascii()


@pytest.mark.parametrize("text", HOSTILE)
def test_errors_and_results_of_commands_are_harmless(
    text: str, tmp_path: Path, adapters: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    Scenes(1)[0].image.save(tmp_path / "image.png")
    image, sentence, out = str(tmp_path / "image.png"), f"{text} red circle", str(tmp_path / f"out{text}")
    runs = (
        ("ground", f"{text}.png", "a red circle"),
        ("ground", image, "a red circle", "--phrase", text),
        ("ground", image, "a red circle", "--method", text),
        ("ground", image, "a red circle", "--model", text),
        ("ground", image, "a red circle", f"--{text}"),
        ("info", text),
        ("data", "check", text),
        ("train", text),
        (text,),
    )
    for arguments in runs:
        assert adapters(*arguments) in (0, 1, 2), arguments
        printed = capfd.readouterr()
        assert harmless(printed.out + printed.err), arguments
        assert len([row for row in printed.err.splitlines() if row.startswith("error: ")]) == 1, arguments
    code = adapters("ground", image, sentence, "--out", out)
    printed = capfd.readouterr()
    assert harmless(printed.out)
    assert harmless("".join(row for row in printed.err.splitlines() if "Loading weights" not in row))  # transformers'
    assert code == ("\udcff" in text)  # which no tokenizer can encode
    if not code:
        assert plain(out) in printed.out


def test_a_name_that_is_too_long_is_one_line(
    tmp_path: Path, adapters: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / f"{'é' * 125}.png"  # 254 bytes
    Scenes(1)[0].image.save(image)
    assert adapters("ground", str(image), "a red circle", "--out", str(tmp_path / ("o" * 255))) == 0
    capfd.readouterr()
    long = "n" * 300
    for arguments in (
        ("ground", long, "a red circle"),
        ("ground", str(image), "a red circle", "--out", long),
        ("ground", str(image), "a red circle", "--model", long),
        ("ground", str(image), "a red circle", "--profile", long),
        ("ground", str(image), "a red circle", "--sam", long),
        ("attend", str(image), "a red circle", "--out", long),
        ("demo", "--out", long),
        ("calibrate", "tiny-qwen2_5_vl", "--images", long),
        ("data", "check", long),
        ("data", "convert", "scenes:count=1,seed=4", "--out", long),
        ("train", long),
        ("scaffold", "acme", "--out", long),
    ):
        assert adapters(*arguments) == 1, arguments
        errors = capfd.readouterr().err.splitlines()
        assert errors[-1].startswith("error: "), arguments
        assert "Traceback" not in "".join(errors)


def test_a_terminal_is_told_colours_by_us_alone() -> None:
    main, terminal = pytest.importorskip("pty").openpty()
    script = "from vlm_adapters.cli.printing import line; line('\\x1b[2Jx', style='red')"
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", script], stdout=terminal, check=True, env=environment)
    os.close(terminal)
    assert os.read(main, 1000).decode() == "\x1b[31m\\x1b[2Jx\x1b[0m\r\n"
    os.close(main)


def test_an_encoding_without_a_letter_gets_its_escape() -> None:
    script = "import sys; from vlm_adapters.cli import main; sys.argv = ['adapters', 'info', 'ü红.x']; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert b"\\xfc\\u7ea2.x" in done.stderr


def test_commands_print_through_one_place() -> None:
    for path in sorted(COMMANDS.glob("*.py")):
        if path.name in ("printing.py", "tables.py", "progress.py"):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        around = used & {"echo", "secho", "print", "rich.console", "rich.table", "rich.text"}
        assert not around, f"{path.name}: print through vlm_adapters.cli.printing"


@pytest.mark.parametrize("columns", ["20", "80", None])
def test_a_table_never_breaks_an_id(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    name, text = "deepseek-community/deepseek-vl-1.3b-chat", "a sentence that gives way to the id beside it " * 3
    print_rows("Title", ("name", "text"), [(name, text), ("b", None)])
    print_facts("Title", [("name", name), ("text", text)])
    printed = capsys.readouterr().out
    assert printed.count(name) == 2
    assert all(word in printed for word in text.split())
    if columns is None:
        assert printed.count(text.strip()) == 2  # a pipe has all room


def test_columns_that_can_give_way_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_rows(None, ("name", "text"), [("n" * 40, "one two three four five six seven")])
    rows = capsys.readouterr().out.splitlines()
    assert max(map(len, rows)) <= 60
    assert "n" * 40 in rows[1]
