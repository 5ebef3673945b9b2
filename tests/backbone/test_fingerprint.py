"""Fingerprints: equal for equal content, others for any change, and never stale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm_adapters.backbone.fingerprint import file_fingerprint, json_fingerprint, weights_fingerprint
from vlm_adapters.registry.loading import load_adapter


def test_weights_are_recognised_by_name_shape_and_values() -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    same = weights_fingerprint({"b": torch.zeros(2), "a": torch.arange(6.0).view(2, 3)})
    others = [
        {**weights, "a": weights["a"].view(3, 2)},
        {**weights, "b": torch.ones(2)},
        {"a": weights["a"], "c": weights["b"]},
    ]
    assert weights_fingerprint(weights) == same
    assert len({same, *map(weights_fingerprint, others)}) == 4


def test_weights_without_values_are_recognised_by_name_and_shape() -> None:
    assert weights_fingerprint({"a": torch.zeros(2, device="meta")}) == weights_fingerprint(
        {"a": torch.ones(2, device="meta")}
    )


def test_complex_weights_are_recognised_by_both_of_their_parts() -> None:
    assert len({weights_fingerprint({"a": torch.tensor([number])}) for number in (1 + 1j, 1 + 2j, 2 + 1j)}) == 3


def test_the_order_of_keys_does_not_matter() -> None:
    assert json_fingerprint({"a": 1, "b": 2}) == json_fingerprint({"b": 2, "a": 1}) != json_fingerprint({"a": 2})


def test_a_file_is_recognised_by_its_name_size_and_content(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for size in [0, 1, 5000, 1_000_000]:
        with subtests.test(size=size):
            path = tmp_path / "w.safetensors"
            path.write_bytes(b"x" * size)
            before = file_fingerprint(path)
            assert before[:2] == (path.name, size)
            path.write_bytes(b"x" * size + b"y")
            assert file_fingerprint(path) != before


def test_the_fingerprint_of_a_backbone_follows_its_weights() -> None:
    adapter = load_adapter("tiny-llava", device="cpu")
    before = adapter.info.fingerprint
    assert before == adapter.info.fingerprint == load_adapter("tiny-llava", device="cpu").info.fingerprint
    with torch.no_grad():
        next(adapter.model.parameters()).mul_(1.01)
    assert adapter.info.fingerprint != before
    assert (adapter.info.device, adapter.info.dtype) == ("cpu", "float32")
