"""SIGTERM and Ctrl-C unwind in every command: an exit code, one line that says how to go on, nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vlm_adapters.cli import RESUMABLE
from vlm_adapters.data import convert as convert_module
from vlm_adapters.data.locks import FOLDER_LOCK, TAKE_OVER

if TYPE_CHECKING:
    from conftest import FakePlugin

Run = Callable[..., int]
SIGNALS = {signal.SIGTERM: (143, "SIGTERM"), signal.SIGINT: (130, "Ctrl-C")}


@pytest.fixture(params=SIGNALS)
def number(request: pytest.FixtureRequest) -> signal.Signals:
    return signal.Signals(request.param)


def strike(number: signal.Signals, function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """The function, which is struck by a signal when it is called for that time."""
    calls: list[None] = []

    def struck(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == after:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)

    return struck


def test_data_convert_leaves_nothing(
    adapters: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(convert_module, "_write_image", strike(number, convert_module._write_image, 3))  # noqa: SLF001
    command = ("data", "convert", "scenes:count=5,seed=4", "--out", str(tmp_path / "set"))
    code, name = SIGNALS[number]
    assert adapters(*command) == code
    assert list(tmp_path.iterdir()) == []
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"Stopped by {name}; nothing half-written stays. Run it again: adapters {' '.join(command)}"
    assert adapters(*command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("command", RESUMABLE)
def test_commands_that_resume_say_so(
    adapters: Run,
    tmp_path: Path,
    fake: FakePlugin,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    command: str,
) -> None:
    fake.gives(lambda: os.kill(os.getpid(), number))
    data = "scenes:count=2,seed=3"
    arguments = {
        "extract": (data, "--model", fake.checkpoint, "--out", str(tmp_path / "x")),
        "evaluate": (fake.checkpoint, data, "--protocol", "packed", "--method", "box", "--out", str(tmp_path / "e")),
        "cache": ("build", "scenes", f"model={fake.checkpoint}", f"train={data}", f"cache={tmp_path / 'c'}"),
        "train": ("scenes", f"model={fake.checkpoint}", f"train={data}", "cache=null", "--out", str(tmp_path / "r")),
    }[command]
    code, name = SIGNALS[number]
    assert adapters(command, *arguments) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"Stopped by {name}; the same command resumes: adapters {command} ")
    assert list(tmp_path.rglob("*")) == []


def test_a_signal_whose_exception_is_dropped_is_not_lost(
    adapters: Run, tmp_path: Path, fake: FakePlugin, number: signal.Signals
) -> None:
    def dropped() -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        for _ in range(100):
            time.sleep(0.1)

    fake.gives(dropped)
    data = "scenes:count=2,seed=3"
    code = adapters("cache", "build", "scenes", f"model={fake.checkpoint}", f"train={data}", f"cache={tmp_path / 'c'}")
    assert code == SIGNALS[number][0]


def test_a_handler_of_the_caller_is_put_back(adapters: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    adapters("--help")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_real_process_ends_with_the_code_of_the_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vlm_adapters", "data", "convert", "scenes:count=100000", "--out", "set"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob(".set.*.tmp/samples.jsonl")):
            pass
        process.terminate()
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert process.returncode == 143
    assert [line.partition(";")[0] for line in lines] == ["Stopped by SIGTERM"]
    assert list(tmp_path.iterdir()) == []


def test_the_option_that_overrides_is_a_global_one(
    adapters: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vlm_adapters.data import locks  # noqa: PLC0415

    def no_locks(_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "_system_lock", no_locks)
    monkeypatch.setenv(TAKE_OVER, "0")
    command = ("data", "convert", "scenes:count=1", "--out", str(tmp_path / "set"))
    (tmp_path / f".set{FOLDER_LOCK}").write_text("left by a killed process")
    assert adapters(*command) == 1
    assert "adapters --take-over" in capsys.readouterr().err
    assert adapters("--take-over", *command) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
