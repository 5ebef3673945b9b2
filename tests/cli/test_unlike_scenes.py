"""One line on stderr where a command shows an embedded model an image that is not a scene, and none elsewhere."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.embedded.unlike_scenes import REAL_CHECKPOINT

if TYPE_CHECKING:
    from PIL import Image

TOY, TEXT = "tiny-llava", "a red cross"
RECIPE = ["scenes", f"model={TOY}", "cache=CACHE", "decoder={base_width: 2, depth: 2}", "epochs=1", "precision=float32"]
OF_IMAGE = {
    "ground": ["ground", "IMAGE", TEXT, "--model", TOY],
    "ground by heads": ["ground", "IMAGE", TEXT, "--model", TOY, "--method", "heads"],
    "attend": ["attend", "IMAGE", TEXT, "--model", TOY],
    "demo": ["demo", "IMAGE", TEXT, "--model", TOY],
}
OF_SET = {
    "evaluate": ["evaluate", TOY, "SET", "--protocol", "packed", "--batch-size", "1"],
    "calibrate": ["calibrate", TOY, "--images", "SET", "--out", "OUT/profile.json"],
    "cache": ["cache", "build", *RECIPE, "train=[SET]", "validation=null"],
    "train": ["train", *RECIPE, "train=[SET]", "validation=null"],
}


@pytest.fixture(scope="module", params=["photographs", "scenes"])
def files(
    request: pytest.FixtureRequest, photograph: Callable[..., Image.Image], tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, Path]:
    """Whether they are photographs, and a folder: three images with sentences, which is a data set, too."""
    folder, are_photographs = tmp_path_factory.mktemp("files"), request.param == "photographs"
    images = [photograph(seed) for seed in range(3)] if are_photographs else [scene.image for scene in Scenes(3)]
    lines = []
    for index, image in enumerate(images):
        image.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(TEXT)
        mask = np.zeros((image.height, image.width), np.bool_)
        mask[40:90, 30:120] = True
        phrases = [{"span": [0, len(TEXT)], "mask": encode_rle(mask)}]
        lines.append(
            {"id": f"{index}", "image": f"{index}.png", "image_id": f"{index}", "text": TEXT, "phrases": phrases}
        )
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return are_photographs, folder


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets warnings reach stderr, as they do outside of pytest, which records them."""

    def show(*warning: object, **_: object) -> None:
        sys.stderr.write(warnings.formatwarning(*warning[:4]))  # type: ignore[arg-type]

    monkeypatch.setattr(warnings, "showwarning", show)


@pytest.mark.usefixtures("shown")
@pytest.mark.filterwarnings("always::vlm_adapters.errors.UnlikeSceneWarning")
@pytest.mark.parametrize("name", [*OF_IMAGE, *OF_SET])
def test_a_command_says_once_that_the_model_does_not_know_such_images(
    name: str,
    files: tuple[bool, Path],
    tmp_path: Path,
    adapters: Callable[..., int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    are_photographs, folder = files
    paths = {
        "IMAGE": folder / "0.png",
        "SET": folder,
        "CACHE": tmp_path / "cache",
        "OUT": tmp_path,
    }
    words = []
    for word in {**OF_IMAGE, **OF_SET}[name]:
        for mark, path in paths.items():
            word = word.replace(mark, str(path))  # noqa: PLW2901 - one mark after the other
        words.append(word)
    out = [] if name in ("calibrate", "cache") else ["--out", str(tmp_path / "out")]
    assert adapters(*words, *out) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(said) == are_photographs, said
    if are_photographs:
        assert said[0].startswith(f"warning: {TOY} was trained on synthetic scenes of coloured shapes, and an image")
        assert REAL_CHECKPOINT in said[0]


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
def test_the_results_say_it_too(
    files: tuple[bool, Path], tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    are_photographs, folder = files
    image, out = str(folder / "0.png"), tmp_path / "out"
    assert adapters("ground", image, TEXT, "--model", TOY, "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert ("score (meaningless)" in printed) == are_photographs
    assert adapters("attend", image, TEXT, "--model", TOY, "--out", str(out)) == 0
    assert adapters("evaluate", TOY, str(folder), "--protocol", "packed", "--out", str(out)) == 0
    assert ("**Warning**" in (out / "card.md").read_text()) == are_photographs
    for name in ("grounding.json", "attention.json", "card.json"):
        said = json.loads((out / name).read_text())["warnings"]
        assert [REAL_CHECKPOINT in warning for warning in said] == [True] * are_photographs
