"""A cache that several processes build: real ones, started as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_adapters.data.locks import locked_folder

BUILD = """
import os, signal, sys
from pathlib import Path
import torch
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.errors import AdapterError
from vlm_adapters.evaluation.process import Process
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.cache.build import build_cache
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.samples import LiveSamples

torch.manual_seed(0)
torch.set_num_threads(1)
folder, killed, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
process = Process.this("cpu")
adapter, data = FakeAdapter(), "scenes:count=9,seed=3"

def report(progress):
    if process.index == killed and progress.samples == last:
        os.kill(os.getpid(), signal.SIGKILL)

live = LiveSamples(adapter, open_dataset(data), CacheFingerprint.of(adapter, data, FeatureRequest()))
try:
    build_cache(live, folder, shard_samples=2, process=process, report=report)
except AdapterError as error:
    print(type(error).__name__, error, flush=True)
    os._exit(1)
process.finish()
"""
NOBODY = -1


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def build(folder: Path, count: int, killed: int = NOBODY, last: int = 0) -> list[tuple[int, str]]:
    """Build with some processes, of which one may be killed at a sample; gives their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    command = [sys.executable, "-c", BUILD, str(folder), str(killed), str(last)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a cache that one process built."""
    folder = tmp_path_factory.mktemp("one") / "cache"
    assert build(folder, 1) == [(0, "")]
    return digests(folder)


def test_two_processes_write_the_same_bytes_as_one(by_one: dict[str, str], tmp_path: Path) -> None:
    assert len(by_one) == 2 + 2 * 5
    assert [code for code, _ in build(tmp_path / "cache", 2)] == [0, 0]
    assert digests(tmp_path / "cache") == by_one


@pytest.mark.parametrize(("killed", "last", "then"), [(1, 2, 1), (0, 3, 3)])
def test_one_is_killed_the_other_says_so_and_another_number_of_processes_resumes(
    by_one: dict[str, str], tmp_path: Path, killed: int, last: int, then: int
) -> None:
    ended = build(tmp_path / "cache", 2, killed, last)
    assert ended[killed][0] == -signal.SIGKILL
    code, said = ended[1 - killed]
    assert code == 1
    assert "OutputError Another of the 2 processes that share the work has ended" in said
    assert "index.json" not in digests(tmp_path / "cache")
    assert [code for code, _ in build(tmp_path / "cache", then)] == [0] * then
    assert digests(tmp_path / "cache") == by_one


def test_where_a_stranger_builds_no_process_begins(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "cache"):
        (first, refused), (second, ended) = build(tmp_path / "cache", 2)
        assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert first == second == 1
    assert f"is in use by process {os.getpid()} on" in refused
    assert "Another of the 2 processes that share the work has ended" in ended
