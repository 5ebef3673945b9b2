"""`adapters ground`, `attend` and `demo` on the embedded model, and their error messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.data.rle import decode_rle

if TYPE_CHECKING:
    from vlm_adapters.data.sample import Sample


@pytest.fixture(scope="module")
def scene() -> Sample:
    return Scenes(1, seed=HELD_OUT_SEED)[0]


@pytest.fixture
def image(scene: Sample, tmp_path: Path) -> str:
    scene.image.save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as file:
        return file.copy()


def phrase_options(scene: Sample) -> list[str]:
    return [option for phrase in scene.phrases for option in ("--phrase", phrase.text)]


def test_ground_writes_overlay_masks_and_json_that_agree(
    scene: Sample, image: str, tmp_path: Path, adapters: Callable[..., int]
) -> None:
    out = tmp_path / "out"
    assert adapters("ground", image, scene.text, *phrase_options(scene), "--out", str(out)) == 0
    report = json.loads((out / "grounding.json").read_text())
    assert [found["text"] for found in report["phrases"]] == [phrase.text for phrase in scene.phrases]
    for index, found in enumerate(report["phrases"]):
        mask = np.asarray(opened(out / f"mask_{index:02d}.png"))
        assert (decode_rle(found["mask"]) == mask.astype(bool)).all()
        assert mask.shape == (scene.image.height, scene.image.width)
        assert report["text"][slice(*found["span"])] == found["text"]
    overlay, shown = np.asarray(opened(out / "overlay.png")), np.asarray(scene.image)
    height, width = shown.shape[:2]
    assert overlay.shape[0] > height  # below the image, a legend
    untouched = (overlay[:height, :width] == shown).all(-1)
    assert untouched.mean() > 0.3
    assert not list(out.glob("*.tmp"))


def test_the_masks_of_ground_lie_on_the_shapes_named(
    scene: Sample, image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert adapters("ground", image, scene.text, *phrase_options(scene), "--out", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = np.stack([decode_rle(phrase["mask"]) for phrase in report["phrases"]])
    overlap = (found[:, None] & scene.masks[None]).sum((-2, -1))
    assert (overlap.argmax(1) == np.arange(len(scene.masks))).all()


def test_the_text_is_one_phrase_where_none_is_given(
    image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("ground", image, "a red circle", "--out", str(tmp_path / "out"), "--json") == 0
    assert [phrase["span"] for phrase in json.loads(capsys.readouterr().out)["phrases"]] == [[0, 12]]


def test_words_that_occur_twice_are_named_by_their_span(
    image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a red circle and a red circle"
    assert adapters("ground", image, text, "--span", "17:29", "--out", str(tmp_path), "--json") == 0
    assert [phrase["span"] for phrase in json.loads(capsys.readouterr().out)["phrases"]] == [[17, 29]]


def test_a_mistake_is_one_line_and_exit_code_1(
    image: str, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["nowhere.png", "a red circle"], "nowhere.png"),
        (["https://example.org/cat.png", "a red circle"], "https://example.org/cat.png"),
        ([image, "a red circle", "--phrase", "a blue star"], "'a blue star' is not in the text 'a red circle'"),
        ([image, "a dot on a dot", "--phrase", "a dot"], "more than once"),
        ([image, "a red circle", "--span", "five"], "'five' is not of the form START:END"),
        ([image, "a red circle", "--model", "no/such/folder"], "no/such/folder"),
        ([image, "a red circle", "--device", "abacus"], "abacus"),
        ([image, "a red circle", "--dtype", "float17"], "float17"),
    ):
        assert adapters("ground", *arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_attend_writes_a_sheet_per_phrase_and_names_the_heads_that_follow_it(
    scene: Sample, image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    options = [*phrase_options(scene), "--heads", "3", "--out", out, "--json"]
    assert adapters("attend", image, scene.text, *options) == 0
    report = json.loads(capsys.readouterr().out)["phrases"]
    assert [entry["phrase"] for entry in report] == [phrase.text for phrase in scene.phrases]
    for entry in report:
        assert opened(entry["file"]).width > scene.image.width
        scores = [head["following"] for head in entry["heads"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 3
        assert entry["reliability"]["level"] in ("high", "fair", "low")


def test_attend_prints_how_reliable_maps_are_and_shows_raw_ones_on_request(
    scene: Sample, image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    for index, options in enumerate(([], ["--raw"])):
        out = tmp_path / str(index)
        assert adapters("attend", image, scene.text, *phrase_options(scene), *options, "--out", str(out)) == 0
        printed = capsys.readouterr().out
        for phrase in scene.phrases:
            assert f"{phrase.text}: heads that follow it best (layer.head) " in printed
        assert len(re.findall(r"reliability (high|fair|low) \(\d\.\d\d\): agreement of heads \d", printed)) == len(
            scene.phrases
        )
        report = json.loads((out / "attention.json").read_text())
        assert report["raw"] is (index == 1)
        drawn.append([Path(shown["file"]).read_bytes() for shown in report["phrases"]])
    assert all(one != other for one, other in zip(*drawn, strict=True))


def test_demo_shows_a_scene_with_its_truth_and_an_image_of_the_user(
    image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("demo", image, "a red circle", "--out", str(tmp_path / "out")) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"scene.png", "image.png"}
    assert "IoU" in capsys.readouterr().out


def test_demo_takes_the_coloured_shapes_of_a_sentence_as_phrases(
    image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("demo", image, "A red circle; a blue star.", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out.split("A red circle; a blue star.")[1]
    assert [line.split("  ")[0] for line in printed.splitlines()[2:4]] == ["A red circle", "a blue star"]


def test_a_folder_that_cannot_be_written_to_is_reported_in_one_line(
    image: str, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("ground", image, "a red circle", "--out", f"{image}/sub") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "cannot be written" in line


def test_demo_needs_a_sentence_with_an_image(
    image: str, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapters("demo", image) == 1
    assert "Give one after the image" in capsys.readouterr().err


def test_256_phrases_are_announced_before_the_model_is_loaded(
    image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    spans = [option for index in range(256) for option in ("--span", f"{6 * index}:{6 * index + 5}")]
    text = " ".join(["a cat"] * 256)
    assert adapters("ground", image, text, *spans, "--model", "no/such/folder", "--out", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("256 phrases: masks.png, which has room for 255, is left out.")
    assert adapters("ground", image, text, *spans, "--out", str(tmp_path / "out")) == 0
    assert len(list((tmp_path / "out").glob("mask_*.png"))) == 256
    assert not (tmp_path / "out" / "masks.png").exists()


def test_ground_looks_again_in_crops_and_says_so(
    scene: Sample, image: str, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = scene.phrases[0].text, tmp_path / "out"
    assert adapters("ground", image, text, "--look-again", "1", "--out", str(out)) == 0
    assert "looks again once, in crops with a margin of 0.5" in capsys.readouterr().out
    mask = np.asarray(opened(out / "mask_00.png")).astype(bool)
    assert (mask & scene.masks[0]).sum() > 0.5 * (mask | scene.masks[0]).sum()
