"""The embedded backbones find the shapes of scenes that they were not trained on, and swap by one name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vlm_adapters import GroundedVLM
from vlm_adapters.cli import app
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation.metrics import mask_iou

SCENES = list(Scenes(12, seed=HELD_OUT_SEED))
NAMES = sorted(embedded_checkpoints())
RESULTS = Path(__file__).parents[2] / "examples" / "lab" / "results"


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_found_where_they_are_and_not_where_they_are_in_another_image(name: str) -> None:
    vlm = GroundedVLM.from_pretrained(name, device="cpu")
    ious = {0: [0.0], 1: [0.0]}
    for shift, values in ious.items():
        values.clear()
        for scene, found in zip(SCENES, vlm.ground_all([scene.prompt for scene in SCENES]), strict=True):
            other = SCENES[(SCENES.index(scene) + shift) % len(SCENES)]
            for phrase, mask in zip(found.phrases, other.masks, strict=False):
                if phrase.mask.shape == mask.shape:
                    values.append(mask_iou(phrase.mask, mask))
    assert np.mean(ious[0]) > 0.7
    assert not ious[1] or np.mean(ious[1]) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_what_was_measured_is_above_the_bar_and_its_controls_below(name: str) -> None:
    measured = json.loads((RESULTS / f"{name}_scenes.json").read_text(encoding="utf-8"))
    assert measured["scenes"] == 500
    assert measured["mean IoU"] >= 0.7
    assert measured["mean IoU, images swapped"] <= 0.25
    assert measured["shape words right"] >= 0.85
    assert measured["shape words right, best of the five, blank image"] <= 0.3


@pytest.mark.parametrize("name", NAMES)
def test_the_demo_swaps_the_backbone_by_one_name(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "--model", name, "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert name in done.stdout
    assert (tmp_path / "scene.png").stat().st_size > 10_000
