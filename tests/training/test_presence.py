"""Presence is learned beside the masks where phrases are absent, and calibrated on the validation samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.training.checkpoint import checkpoints
from vlm_adapters.training.data import TrainingData
from vlm_adapters.training.log import read_log
from vlm_adapters.training.loop import train
from vlm_adapters.training.recipe import Recipe

Recipes = Callable[..., Recipe]
ABSENT = {"train": ["hard_scenes:count=7,seed=3"], "validation": "hard_scenes:count=6,seed=6"}


def presence_weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(out)[-1] / "presence.safetensors")


def test_presence_is_learned_where_phrases_are_tagged_as_absent(recipe: Recipes) -> None:
    for changes, learned in (
        (ABSENT, True),
        ({}, False),  # the scenes of the fixture name only what is there
        ({**ABSENT, "presence": False}, False),
        ({"presence": True}, True),
        ({"train": ["scenes:count=3,seed=3", "hard_scenes:count=200,seed=3"]}, True),
    ):
        request = TrainingData.open(recipe(**changes)).request
        assert (request.hidden, request.log_probabilities) == (learned, learned)


def test_a_run_saves_a_calibrated_head(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(**ABSENT), tmp_path)
    vlm = GroundedVLM.from_pretrained(tmp_path / "best", adapter=FakeAdapter())
    head = vlm.decoder.presence
    assert head is not None
    logits, present = [], []
    for sample in open_dataset(ABSENT["validation"]):
        (found,) = vlm.mask_logits([sample.prompt])
        assert found.presence is not None
        logits += found.presence.tolist()
        present += sample.masks.any(axis=(1, 2)).tolist()
    expected = Calibration.of(logits, present)
    assert head.calibration.scale == pytest.approx(expected.scale, abs=0.02)  # the cache keeps half the precision
    assert head.calibration.offset == pytest.approx(expected.offset, abs=0.02)
    assert head.calibration.threshold == pytest.approx(expected.threshold, abs=0.02)


def test_masks_learn_the_same_with_and_without_presence(recipe: Recipes, tmp_path: Path) -> None:
    """On data without absent phrases, to the bit; the loss has the cross entropy of presence in addition."""
    for name, presence in (("with", True), ("without", False)):
        train(recipe(presence=presence, precision="float32"), tmp_path / name)
    of_masks = [load_file(checkpoints(tmp_path / name)[-1] / "model.safetensors") for name in ("with", "without")]
    assert all(torch.equal(tensor, of_masks[1][name]) for name, tensor in of_masks[0].items())
    losses = [[line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("with", "without")]
    assert all(learned > plain for learned, plain in zip(*losses, strict=True))


def test_the_cache_and_the_backbone_in_the_loop_teach_the_same(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(**ABSENT), tmp_path / "cached")
    train(recipe(**ABSENT, cache=None), tmp_path / "live")
    cached, live = (presence_weights(tmp_path / name) for name in ("cached", "live"))
    assert all(torch.equal(tensor, live[name]) for name, tensor in cached.items())


def test_validation_without_absent_phrases_leaves_the_head_uncalibrated(recipe: Recipes, tmp_path: Path) -> None:
    train(recipe(train=ABSENT["train"]), tmp_path)
    config = json.loads((tmp_path / "best" / "config.json").read_bytes())["presence"]
    assert config == {"width": 32, "scale": 1.0, "offset": 0.0, "threshold": 0.5}


def test_the_validation_judges_masks_of_present_phrases(recipe: Recipes, tmp_path: Path) -> None:
    state = train(recipe(**ABSENT, decoder={"base_width": 2, "depth": 2, "canvas": 16}), tmp_path)
    vlm = GroundedVLM.from_pretrained(tmp_path / "best", adapter=FakeAdapter())
    vlm.keeps_absent_masks = True
    ious = []
    for sample in open_dataset(ABSENT["validation"]):
        for found, truth in zip(vlm.ground_all([sample.prompt])[0].phrases, sample.masks, strict=True):
            if truth.any():
                ious.append((found.mask & truth).sum() / (found.mask | truth).sum())
    assert state.best_mean_iou == pytest.approx(sum(ious) / len(ious), abs=5e-3)
