"""`adapters calibrate`, and `adapters ground` without a decoder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.testing.fakes import FakeAdapter

TINY = "tiny-qwen2_5_vl"


def test_heads_are_chosen_with_masks_and_the_profile_is_used(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "head_profile.json")
    assert adapters("calibrate", TINY, "--labelled", "4", "--seed", "6", "--out", file, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    profile = HeadProfile.read(printed.pop("file"))
    assert profile.model_dump() == printed
    assert (profile.samples, profile.seed, profile.criterion) == (4, 6, "iou")
    Scenes(1, seed=HELD_OUT_SEED)[0].image.save(tmp_path / "scene.png")
    arguments = ["ground", str(tmp_path / "scene.png"), "a red circle", "--profile", file, "--out", str(tmp_path)]
    assert adapters(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "heads"
    assert adapters(*arguments) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("method: heads, without training: ")
    assert "by iou on 4 images" in first


def test_heads_are_chosen_without_masks_on_scenes_and_on_images_of_the_user(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "head_profile.json")
    assert adapters("calibrate", TINY, "--samples", "2", "--out", file) == 0
    assert capsys.readouterr().out.startswith("following on 2 images from scenes\n")
    for index, scene in enumerate(Scenes(2, seed=6)):
        scene.image.save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(scene.text)
    assert adapters("calibrate", TINY, "--images", str(tmp_path), "--out", file) == 0
    profile = HeadProfile.read(file)
    assert (profile.source, profile.seed, profile.samples) == (str(tmp_path), None, 2)


def test_a_model_of_which_no_head_follows_phrases_gets_a_profile_that_says_so(
    tmp_path: Path,
    adapters: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vlm_adapters.registry.loading.load_adapter", lambda *_, **__: FakeAdapter())
    file = str(tmp_path / "head_profile.json")
    assert adapters("calibrate", "random", "--samples", "4", "--out", file) == 0
    printed = capsys.readouterr().out
    assert "No head of random follows phrases" in printed
    assert "A mask is" not in printed
    assert HeadProfile.read(file).heads == []


def test_a_mistake_is_one_line_and_exit_code_1(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(tmp_path / "scene.png")
    Scenes(1, seed=6)[0].image.save(image)
    for arguments, message in (
        (["calibrate", TINY, "--seed", str(HELD_OUT_SEED)], "kept for measuring"),
        (["calibrate", TINY, "--images", ".", "--labelled", "9"], "images of yours have no masks"),
        (["calibrate", "nowhere"], "No checkpoint 'nowhere'"),
        (["ground", image, "a red circle", "--profile", "nowhere.json"], "No head profile can be read"),
    ):
        assert adapters(*arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_ground_says_that_the_model_was_asked_for_boxes(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Scenes(1, seed=6)[0].image.save(tmp_path / "scene.png")
    arguments = [
        "ground",
        str(tmp_path / "scene.png"),
        "a red circle",
        "--method",
        "box",
        "--out",
        str(tmp_path / "out"),
    ]
    assert adapters(*arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("method: box, in the model's own words")
    assert re.search(r"a red circle +0\.00 +0\.00 +absent", printed)  # the tiny model writes no coordinates
    assert json.loads((tmp_path / "out" / "grounding.json").read_text())["method"] == "box"


def test_ground_says_that_the_decoder_ran(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Scenes(1, seed=6)[0].image.save(tmp_path / "scene.png")
    arguments = ["ground", str(tmp_path / "scene.png"), "a red circle", "--out", str(tmp_path / "out")]
    assert adapters(*arguments) == 0
    assert capsys.readouterr().out.startswith("method: decoder, trained on qwen2_5_vl\n")
    assert json.loads((tmp_path / "out" / "grounding.json").read_text())["method"] == "decoder"
