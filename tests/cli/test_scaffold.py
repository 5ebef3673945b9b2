"""`adapters scaffold`, as a stranger runs it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from vlm_adapters.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def scaffold(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["adapters", "scaffold", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_it_names_the_files_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plugin"
    assert scaffold(monkeypatch, "perception_lm", "--out", str(out)) == 0
    *files, following = capsys.readouterr().out.splitlines()
    assert set(files) == {str(path) for path in out.rglob("*") if path.is_file()}
    install = f"pip install --editable {out}"
    assert following == (
        f"Next: fill in the parts that {out / 'README.md'} names, {install}, adapters check perception_lm"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perception_lm", "--out", "{folder}"], "has 1 entries, and nothing is overwritten"),
        (["inter", "--out", "{folder}/new"], "has no model type 'inter'"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.txt").touch()
    assert scaffold(monkeypatch, *(argument.format(folder=tmp_path) for argument in arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
