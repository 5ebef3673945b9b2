"""Options that are wrong are reported before a model is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from vlm_adapters.cli import main

TEXT = "a cat on a mat"
GROUND = ["ground", "IMAGE", TEXT]
ATTEND = ["attend", "IMAGE", TEXT]
EVALUATE = ["evaluate", "tiny-llava", "scenes:count=2,seed=4", "--protocol", "packed"]
CALIBRATE = ["calibrate", "tiny-llava"]
TRAIN = ["train", "scenes", "cache=null"]
MISTAKES = {
    "ground, no image": (["ground", "MISSING", TEXT], "does not exist"),
    "ground, not an image": (["ground", "FILE", TEXT], "is not an image"),
    "ground, phrase": ([*GROUND, "--phrase", "a dog"], "a dog"),
    "ground, phrase twice": (["ground", "IMAGE", "a cat, a cat", "--phrase", "a cat"], "a cat"),
    "ground, span": ([*GROUND, "--span", "3-9"], "is not of the form START:END"),
    "ground, span beyond": ([*GROUND, "--span", "3:99"], "99"),
    "ground, empty text": (["ground", "IMAGE", ""], "phrase"),
    "ground, out": ([*GROUND, "--out", "FILE"], "file"),
    "ground, out beneath a file": ([*GROUND, "--out", "FILE/out"], "file"),
    "ground, no sam": ([*GROUND, "--sam", "MISSING"], "There is no file"),
    "ground, not sam": ([*GROUND, "--sam", "FILE"], "cannot be read as weights"),
    "ground, not sam, heads": ([*GROUND, "--sam", "FILE", "--method", "heads"], "cannot be read as weights"),
    "ground, method": ([*GROUND, "--method", "magic"], "'magic' is not one of 'auto', 'decoder'"),
    "ground, profile": ([*GROUND, "--profile", "MISSING"], "head profile"),
    "ground, profile of a decoder": ([*GROUND, "--profile", "FILE", "--method", "decoder"], "Leave one out"),
    "attend, no image": (["attend", "MISSING", TEXT], "does not exist"),
    "attend, phrase": ([*ATTEND, "--phrase", "a dog"], "a dog"),
    "attend, out": ([*ATTEND, "--out", "FILE"], "file"),
    "demo, no text": (["demo", "IMAGE"], "has no sentence"),
    "demo, phrase": (["demo", "IMAGE", TEXT, "--phrase", "a dog"], "a dog"),
    "demo, out": (["demo", "--out", "FILE"], "file"),
    "evaluate, data": (["evaluate", "tiny-llava", "MISSING", "--protocol", "packed"], "missing"),
    "evaluate, protocol": ([*EVALUATE[:-1], "magic"], "'magic' is not one of 'isolated', 'packed'"),
    "evaluate, sentences": ([*EVALUATE, "--sentences", "magic"], "'magic' is not one of 'all', 'first'"),
    "evaluate, out": ([*EVALUATE, "--out", "FILE"], "file"),
    "evaluate, no sam": ([*EVALUATE, "--sam", "MISSING"], "There is no file"),
    "evaluate, profile": ([*EVALUATE, "--profile", "MISSING"], "head profile"),
    "calibrate, criterion": ([*CALIBRATE, "--criterion", "magic"], "'magic' is not one of 'iou', 'pointing'"),
    "calibrate, images": ([*CALIBRATE, "--images", "MISSING"], "missing"),
    "calibrate, out is a folder": ([*CALIBRATE, "--out", "FOLDER"], "is a folder"),
    "calibrate, out beneath a file": ([*CALIBRATE, "--out", "FILE/profile.json"], "file"),
    "train, recipe": (["train", "magic"], "magic"),
    "train, key": ([*TRAIN, "magic=1"], "magic"),
    "train, out": ([*TRAIN, "--out", "FILE"], "file"),
    "train, no sam": ([*TRAIN, "refiner={sam: missing.pth}"], "There is no file"),
}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a model is loaded")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows_before_a_model_is_loaded(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    (tmp_path / "file").write_text("no image, no weights")
    paths = {name.upper(): str(tmp_path / name) for name in ("missing", "file", "folder")}
    paths["IMAGE"] = str(tmp_path / "image.png")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for module in ("training.data", "grounding.load", "grounding.stored", "registry.loading"):  # what imports it first
        monkeypatch.setattr(f"vlm_adapters.{module}.load_adapter", refuse)
    words, message = MISTAKES[mistake]
    head = [paths[part] if (part := word.partition("/")[0]) in paths else part for word in words]
    arguments = [start + word[len(word.partition("/")[0]) :] for start, word in zip(head, words, strict=True)]
    monkeypatch.setattr(sys, "argv", ["adapters", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr().err
    assert stopped.value.code == (2 if "is not one of" in message else 1)
    assert printed.startswith("error: ")
    assert message in printed
    assert {path.name for path in tmp_path.iterdir()} <= {"image.png", "file", "folder"}


@pytest.mark.parametrize("words", [GROUND, ATTEND, ["demo"], EVALUATE, CALIBRATE, TRAIN])
def test_without_a_mistake_a_model_is_loaded(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "IMAGE", "PNG")
    monkeypatch.chdir(tmp_path)
    for module in ("training.data", "grounding.load", "grounding.stored", "registry.loading"):  # what imports it first
        monkeypatch.setattr(f"vlm_adapters.{module}.load_adapter", refuse)
    monkeypatch.setattr(sys, "argv", ["adapters", *words])
    with pytest.raises(AssertionError, match="a model is loaded"):
        main()
