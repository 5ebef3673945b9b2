"""`-v` shows the library's log, `-q` leaves results and errors; Python callers decide for themselves."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_adapters.data.formats.scenes import Scenes

Run = Callable[..., int]


@pytest.fixture
def ground(tmp_path: Path, adapters: Run) -> Callable[..., int]:
    Scenes(1)[0].image.save(tmp_path / "scene.png")
    command = ("ground", str(tmp_path / "scene.png"), "a cat " * 256, "--out", str(tmp_path / "out"))
    return lambda *options: adapters(*command, *options)


def test_the_log_is_shown_on_request(ground: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for options in ((), ("-v",), ("-vv",)):
        assert ground(*options) == 0
        found.append(capsys.readouterr().err)
    plain, info, debug = found
    assert "info: " not in plain
    assert "info: loading " in info
    assert "debug: " not in info
    assert "info: loading " in debug
    assert "debug: options of loading: " in debug
    assert not logging.getLogger("vlm_adapters").isEnabledFor(logging.INFO)


def test_quiet_leaves_the_result_and_the_errors(ground: Run, adapters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    spans = [word for index in range(256) for word in ("--span", f"{6 * index}:{6 * index + 5}")]
    assert ground("-q", "--json", *spans) == 0  # without -q, a line says that masks.png is left out
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["phrases"]) == 256
    assert not [
        row for row in printed.err.splitlines() if row and "Loading weights" not in row
    ]  # a bar of transformers
    assert adapters("info", "nowhere", "-q") == 1
    assert capsys.readouterr().err.startswith("error: No checkpoint 'nowhere'")


def test_the_library_shows_no_log_by_itself() -> None:
    script = "import vlm_adapters, logging; logging.getLogger('vlm_adapters.training').warning('hello')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
