"""Runs that several processes share: real ones, started as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (
    "extract",
    "scenes:count=18,seed=4",
    "--model",
    "tiny-llava",
    "--layers=-1",
    "--shard-size=3",
    "--batch-size=2",
    "--out",
)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(folder: Path, count: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vlm_adapters", *COMMAND, str(folder)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run of one process."""
    folder = tmp_path_factory.mktemp("one") / "out"
    assert [code for code, _, _ in finish(start(folder, 1))] == [0]
    return digests(folder)


def test_two_processes_write_the_same_bytes_as_one(by_one: dict[str, str], tmp_path: Path) -> None:
    first, second = finish(start(tmp_path / "out", 2))
    assert (first[0], second[0]) == (0, 0)
    assert "images 18, failed 0" in first[1]
    assert second[1] == ""
    assert digests(tmp_path / "out") == by_one
    assert len(by_one) == 2 + 2 * 6


@pytest.mark.parametrize("killed", [0, 1])
def test_one_is_killed_and_one_process_resumes(by_one: dict[str, str], tmp_path: Path, killed: int) -> None:
    out = tmp_path / "out"
    processes = start(out, 2)
    while not (out / "shard-000000.json").is_file():
        assert processes[killed].poll() is None
        time.sleep(0.01)
    processes[killed].send_signal(signal.SIGKILL)
    code, _, errors = finish(processes)[1 - killed]
    assert code == 1
    assert "Another of the 2 processes that share the work has ended" in errors
    assert "index.json" not in digests(out)
    assert [code for code, _, _ in finish(start(out, 1))] == [0]
    assert digests(out) == by_one
