"""Which process this is, by the environment variables of the launcher."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from vlm_adapters.errors import OptionError, PluginError
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


def test_a_device_by_its_number_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"device=cuda:1 is for one process, and 2 were started.*Take device=cuda\."):
        Process.this("cuda:1")


def test_alone_there_is_nothing_to_wait_for_and_a_sum_is_the_number() -> None:
    process = Process()
    process.wait()
    numbers = torch.tensor([1.0, 2.0])
    assert process.sum(numbers).tolist() == [1, 2]
    assert process.is_first


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    alone = SimpleNamespace(PartialState=lambda **_: SimpleNamespace(num_processes=1))
    monkeypatch.setitem(sys.modules, "accelerate", alone)
    with pytest.raises(PluginError, match=r"2 processes were started, and accelerate sees 1: .*`torchrun`"):
        Process.this()
