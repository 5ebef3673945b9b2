"""Devices and precisions as people write them, and as loaded models say them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vlm_adapters.errors import OptionError
from vlm_adapters.hf.placement import input_device, pixel_dtype, resolve_device, resolve_dtype


def with_accelerator(monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind) if kind else None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def test_a_device_is_any_of_torch_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[str | None, int, Any, str]] = [
        (None, 0, "auto", "cpu"),
        ("cuda", 1, "auto", "cuda"),
        ("mps", 1, "auto", "mps"),
        ("cuda", 2, "cpu", "cpu"),
        ("cuda", 2, "cuda:1", "cuda:1"),
        ("cuda", 2, torch.device("cuda", 1), "cuda:1"),
        ("mps", 1, "mps", "mps"),
        ("xpu", 4, "xpu:3", "xpu:3"),
    ]
    for kind, count, device, expected in cases:
        with_accelerator(monkeypatch, kind, count)
        assert resolve_device(device) == torch.device(expected), (kind, count, device)


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(
    subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[str | None, int, str, str]] = [
        (None, 0, "cuda:1", "The device 'cuda:1' is not available; found no accelerator. Use auto or cpu."),
        ("cuda", 1, "cuda:1", "The device 'cuda:1' is not available; found 1 x cuda. Use auto or cpu."),
        ("cuda", 1, "mps", "The device 'mps' is not available; found 1 x cuda. Use auto or cpu."),
        (None, 0, "gpu", "Unknown device 'gpu'. Use auto, cpu, cuda, cuda:1, mps, ..."),
    ]
    for kind, count, device, message in cases:
        with subtests.test(kind=kind, count=count, device=device):
            with_accelerator(monkeypatch, kind, count)
            with pytest.raises(OptionError) as caught:
                resolve_device(device)
            assert str(caught.value) == message


def test_a_precision_has_several_names() -> None:
    cases: list[tuple[Any, bool, object]] = [
        ("auto", True, torch.float32),
        ("auto", False, "auto"),
        ("bf16", True, torch.bfloat16),
        ("fp16", False, torch.float16),
        ("fp32", False, torch.float32),
        ("torch.bfloat16", True, torch.bfloat16),
        ("half", True, torch.float16),
        (torch.float64, True, torch.float64),
    ]
    for dtype, on_cpu, expected in cases:
        assert resolve_dtype(dtype, on_cpu=on_cpu) == expected, (dtype, on_cpu)


@pytest.mark.parametrize("dtype", ["bf15", "nn", "float99"])
def test_an_unknown_precision_is_an_error_that_names_those_there_are(dtype: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_dtype(dtype, on_cpu=True)
    expected = f"Unknown dtype {dtype!r}. Use auto, float32, bfloat16 (bf16) or float16 (fp16)."
    assert str(caught.value) == expected


def test_a_type_that_nothing_is_computed_in_leads_to_quantisation(subtests: pytest.Subtests) -> None:
    cases: list[Any] = ["int8", "uint8", torch.float8_e4m3fn, torch.int32]
    for dtype in cases:
        with (
            subtests.test(dtype=dtype),
            pytest.raises(OptionError, match=r"cannot compute in .*give quantization_config='nf4' or 'int8'"),
        ):
            resolve_dtype(dtype, on_cpu=True)


class Embedded(nn.Module):
    """A model of one embedding, with the hook of accelerate that brings its weights."""

    def __init__(self, weights: str, hook: object = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 3, device=weights)
        if hook is not None:
            self.embedding.__dict__["_hf_hook"] = hook

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def test_inputs_go_where_the_embedding_is_computed() -> None:
    cases: list[tuple[str, object, str]] = [
        ("cpu", None, "cpu"),
        ("meta", None, "cpu"),
        ("meta", SimpleNamespace(execution_device="cuda:1"), "cuda:1"),
        ("meta", SimpleNamespace(execution_device=torch.device("cpu")), "cpu"),
        ("meta", SimpleNamespace(hooks=(SimpleNamespace(), SimpleNamespace(execution_device="mps"))), "mps"),
        ("cpu", SimpleNamespace(execution_device=None), "cpu"),
    ]
    for weights, hook, expected in cases:
        assert input_device(Embedded(weights, hook)) == torch.device(expected), (weights, hook)


def test_pixels_have_the_precision_of_the_first_weights_that_are_not_packed() -> None:
    model = nn.Module()
    model.packed = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    model.eighth = nn.Parameter(torch.zeros(2).to(torch.float8_e4m3fn), requires_grad=False)
    model.norm = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    model.head = nn.Parameter(torch.zeros(2))
    assert pixel_dtype(model) is torch.bfloat16


def test_no_test_and_nothing_that_it_starts_sees_an_accelerator() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert resolve_device("auto") == torch.device("cpu")
