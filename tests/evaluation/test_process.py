"""Which process this is, by the environment variables of the launcher."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vlm_adapters.errors import PluginError
from vlm_adapters.evaluation.process import Process


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    process = Process.this("cuda:1")
    assert (process.index, process.count, process.device) == (0, 1, "cuda:1")
    process.finish()


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            with pytest.raises(PluginError, match=r"2 processes were started.*Install 'vlm-adapters\[train\]'"):
                Process.this()


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = SimpleNamespace(PartialState=lambda **_: SimpleNamespace(num_processes=1))
    monkeypatch.setitem(sys.modules, "accelerate", alone)
    with pytest.raises(PluginError, match=r"2 processes were started, and accelerate sees 1: .*`torchrun`"):
        Process.this()
