"""From a recipe to its caches: where each lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_adapters.errors import RecipeError
from vlm_adapters.training.data import TrainingData, build_caches
from vlm_adapters.training.loop import train
from vlm_adapters.training.recipe import Recipe

Recipes = Callable[..., Recipe]


def folder(recipe: Recipe) -> Path:
    """Of the cache of the training samples."""
    return TrainingData.open(recipe).caches()[0].folder


def test_what_changes_the_features_changes_the_folder(recipe: Recipes) -> None:
    cases: list[dict[str, Any]] = [
        {"model": "other"},
        {"options": {"min_pixels": 9}},
        {"dtype": "bfloat16"},
        {"quantization": "nf4"},
        {"attn_implementation": "eager"},
        {"cache_dtype": "bfloat16"},
        {"train": ["scenes:count=8,seed=3"]},
    ]
    for changes in cases:
        assert folder(recipe(**changes)) != folder(recipe()), changes


def test_what_is_trained_from_the_features_does_not(recipe: Recipes) -> None:
    cases: list[dict[str, Any]] = [{"epochs": 9}, {"batch_size": 1}, {"seed": 4}, {"decoder": {"base_width": 4}}]
    for changes in cases:
        assert folder(recipe(**changes)) == folder(recipe()), changes


def test_other_weights_in_the_same_folder_change_it(recipe: Recipes, tmp_path: Path) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    found = []
    for content in (b"before", b"after!", b"before"):
        weights.write_bytes(content)
        found.append(folder(recipe(model=str(weights.parent))))
    assert found[0] == found[2] != found[1]


def test_a_device_that_is_not_there_is_reported_before_anything_runs(recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"asks for device=cuda:99\. The device 'cuda:99' is not available"):
        train(recipe(device="cuda:99"), tmp_path / "run")


def test_a_recipe_without_a_cache_has_none_to_build(recipe: Recipes) -> None:
    with pytest.raises(RecipeError, match=r"no cache to build\. Give it a folder: cache=FOLDER"):
        build_caches(recipe(cache=None))
