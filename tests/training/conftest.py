"""A recipe over the fake backbone and a few scenes, and the loader that gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.cache.fingerprint import CacheFingerprint, Precision
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import LiveSamples

if TYPE_CHECKING:
    from conftest import FakePlugin

Live = Callable[..., LiveSamples]
Recipes = Callable[..., Recipe]


class CountingAdapter(FakeAdapter):
    """Counts the prompts that it extracted."""

    extracted = 0

    def extract(self, inputs: Any, request: Any) -> Any:
        type(self).extracted += len(inputs.prompts)
        return super().extract(inputs, request)


@pytest.fixture
def adapter(fake: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> CountingAdapter:
    """The backbone that recipes load."""
    torch.manual_seed(0)
    monkeypatch.setattr(CountingAdapter, "extracted", 0)
    built = CountingAdapter()
    fake.gives(lambda: built)
    return built


@pytest.fixture
def live(adapter: CountingAdapter) -> Live:
    def build(
        data: str = "scenes:count=5,seed=3",
        *,
        hidden: bool = False,
        dtype: Precision = "float16",
        workers: int | None = None,
    ) -> LiveSamples:
        fingerprint = CacheFingerprint.of(adapter, data, FeatureRequest(hidden=hidden), dtype=dtype)
        return LiveSamples(adapter, open_dataset(data), fingerprint, workers=workers)

    return build


@pytest.fixture
def recipe(adapter: CountingAdapter, fake: FakePlugin, tmp_path: Path) -> Recipes:
    del adapter

    def build(**changes: Any) -> Recipe:
        content: dict[str, Any] = {
            "model": fake.checkpoint,
            "device": "cpu",
            "train": ["scenes:count=7,seed=3"],
            "validation": "scenes:count=3,seed=6",
            "cache": str(tmp_path / "cache"),
            "decoder": {"base_width": 2, "depth": 2, "canvas": 16},
            "epochs": 2,
            "batch_size": 3,
            "learning_rate": 0.01,
            "sheet_samples": 2,
        }
        return Recipe.model_validate(content | changes)

    return build
