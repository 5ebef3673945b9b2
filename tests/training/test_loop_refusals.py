"""What a training cannot be made of is refused, or left out where its data say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.errors import CacheError, DecoderError, RecipeError
from vlm_adapters.evaluation.process import Process
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training import loop as loop_module
from vlm_adapters.training.cache.build import CachedSamples
from vlm_adapters.training.checkpoint import checkpoints
from vlm_adapters.training.data import TrainingData, build_caches, process_of
from vlm_adapters.training.loop import train
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import LiveSamples, check_alike

Recipes = Callable[..., Recipe]

Live = Callable[..., LiveSamples]


def test_a_run_of_another_recipe_is_refused(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(epochs=1), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"a run of another recipe: batch_size: 3 -> 2\. Give another --out"):
        train(recipe(epochs=1, batch_size=2), tmp_path / "run")


def test_a_checkpoint_that_is_broken_is_reported(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(epochs=1), tmp_path / "run")
    (checkpoints(tmp_path / "run")[-1] / "state.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"state\.json cannot be read: .* Delete .* to resume"):
        train(recipe(epochs=1), tmp_path / "run")


def test_more_heads_than_a_profile_names_are_an_error(recipe: Recipes, tmp_path: Path) -> None:
    scenes = Scenes(2, seed=5)
    calibrate(FakeAdapter(), CalibrationSet.of_scenes(scenes, 5, labelled=True)).write(tmp_path / "heads.json")
    with pytest.raises(RecipeError, match=r"top_heads=999, and the profile .* names \d+ heads\. Ask for fewer"):
        TrainingData.open(recipe(head_profile=str(tmp_path / "heads.json"), top_heads=999))


def test_phrases_to_learn_from_are_needed(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CachedSamples, "phrase_count", lambda *_: 0)
    with pytest.raises(RecipeError, match="There is no phrase to learn from"):
        train(recipe(validation=None), tmp_path / "run")


def test_several_processes_build_no_cache(recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "process_of", lambda _: Process(0, 2))
    with pytest.raises(
        CacheError,
        match=r"is not finished, or its data have changed, and 2 processes train from a finished one\. Build it first",
    ):
        train(recipe(), tmp_path / "run")


def test_broken_samples_are_left_out_and_logged_with_the_backbone_in_the_loop(
    recipe: Recipes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(Scenes(4, seed=3), tmp_path / "plain", range(4))
    (tmp_path / "plain" / "images" / "000002.png").unlink()
    data = f"folder:path={tmp_path / 'plain'},broken=skip"
    state = train(recipe(train=[data], validation=None, cache=None, batch_size=4), tmp_path / "run")
    assert state.is_finished
    (message,) = [record.getMessage() for record in caplog.records]
    assert "samples.jsonl:3" in message
    assert "000002.png" in message


def test_broken_samples_are_left_out_of_joined_sets_and_of_the_validation(recipe: Recipes, tmp_path: Path) -> None:
    write_folder(Scenes(4, seed=3), tmp_path / "plain", range(4))
    (tmp_path / "plain" / "images" / "000001.png").unlink()
    data = f"folder:path={tmp_path / 'plain'},broken=skip"
    chosen = recipe(train=[data, "scenes:count=2,seed=8"], validation=data, cache=None, sheet_samples=4)
    samples = TrainingData.open(chosen).training_samples(FakeAdapter())
    assert [sample.annotation.id for sample in samples.read([5, 1, 0, 4])] == [
        "scene-8-1",
        "scene-3-0",
        "scene-8-0",
    ]
    state = train(chosen, tmp_path / "run")
    assert state.is_finished
    with Image.open(tmp_path / "run" / "figures" / f"step-{state.step:08d}.png") as sheet:
        assert 3 * 260 < sheet.width < 4 * 260  # three of the four can be shown


def test_other_data_under_the_same_name_are_computed_anew(recipe: Recipes, tmp_path: Path, adapter: Any) -> None:
    write_folder(Scenes(4, seed=3), tmp_path / "plain", range(4))
    chosen = recipe(train=[f"folder:path={tmp_path / 'plain'}"], validation=None)
    build_caches(chosen)
    assert len(TrainingData.open(chosen).training_samples()) == 4
    lines = (tmp_path / "plain" / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "plain" / "samples.jsonl").write_text("".join(lines[:3]))
    done = adapter.extracted
    build_caches(chosen)
    assert len(TrainingData.open(chosen).training_samples()) == 3
    assert adapter.extracted - done == 3


def test_a_run_whose_data_have_changed_is_refused(recipe: Recipes, tmp_path: Path) -> None:
    write_folder(Scenes(4, seed=3), tmp_path / "plain", range(4))
    chosen = recipe(train=[f"folder:path={tmp_path / 'plain'}"], validation=None)
    train(chosen, tmp_path / "run")
    lines = (tmp_path / "plain" / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "plain" / "samples.jsonl").write_text("".join(lines[:3]))
    with pytest.raises(RecipeError, match=r"a run of 4 steps, and the data now give 2: they have changed"):
        train(chosen, tmp_path / "run")


def test_a_loss_that_is_not_finite_ends_the_run_with_its_samples_named(recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"The loss of step \d is \S+ and its gradient's norm \S+ \(samples scene-3-"):
        train(recipe(learning_rate=1e30, validation=None), tmp_path / "run")


def test_values_beyond_half_precision_are_an_error(live: Live) -> None:
    source = live(hidden=True)
    extract = source.adapter.extract

    def large(*arguments: Any) -> Any:
        grids = extract(*arguments)
        for of_prompt in grids:
            for of_grid in of_prompt:
                for states in of_grid.phrase_hidden:
                    states.mul_(1e9)
        return grids

    source.adapter.extract = large  # type: ignore[method-assign]
    with pytest.raises(CacheError, match=r"sample scene-3-0 do not fit into float16.* Take cache_dtype=bfloat16"):
        source.read([0])


def test_a_profile_of_another_backbone_is_an_error(recipe: Recipes, tmp_path: Path) -> None:
    scenes = Scenes(2, seed=5)
    profile = calibrate(FakeAdapter(), CalibrationSet.of_scenes(scenes, 5, labelled=True))
    other = profile.backbone.model_copy(update={"model_type": "other"})
    profile.model_copy(update={"backbone": other}).write(tmp_path / "heads.json")
    with pytest.raises(DecoderError, match="The head profile is of other"):
        train(recipe(head_profile=str(tmp_path / "heads.json")), tmp_path / "run")


def test_a_gpu_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(
        RecipeError, match=r"asks for device=cuda\. The device 'cuda' is not available; found no accelerator"
    ):
        process_of(Recipe(model="tiny", train=["scenes"], device="cuda"))


def test_caches_of_different_models_are_not_mixed(live: Live) -> None:
    fingerprint = live().fingerprint
    other = fingerprint.model_copy(
        update={"backbone": replace(fingerprint.backbone, fingerprint="0" * 16), "data": "scenes:count=2,seed=1"}
    )
    with pytest.raises(CacheError, match=r"differs: backbone: .*'fingerprint': '0{16}'.*\. Delete the older cache"):
        check_alike([fingerprint, other])
