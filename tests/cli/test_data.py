"""`adapters data check` and `adapters data convert`, as a stranger runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlm_adapters.data.formats.folder import Folder


@pytest.fixture
def folder(tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Path:
    """Four scenes in the plain form."""
    assert adapters("data", "convert", "scenes:count=4,seed=7", "--out", str(tmp_path / "set")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set'}: 4 samples, 0 left out\n"
    return tmp_path / "set"


def break_it(folder: Path) -> None:
    """Break the mask of the first line, the second line, and the image of the third."""
    file = folder / "samples.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    first["phrases"][0]["mask"]["counts"] = "0"
    file.write_text("\n".join([json.dumps(first), "{", *lines[2:]]) + "\n", encoding="utf-8")
    (folder / "images" / "000002.png").unlink()


def test_a_sound_set_is_counted(folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert adapters("data", "check", str(folder)) == 0
    phrases = sum(len(sample.phrases) for sample in Folder(folder))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [f"folder:path={folder}"],
        [],
        ["What", "it", "holds"],
        ["samples", "4"],
        ["images", "4"],
        ["phrases", str(phrases)],
        ["empty", "masks", "0"],
        ["problems", "0"],
    ]


def test_a_broken_set_is_reported_by_file_and_line_and_is_exit_code_1(
    folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    break_it(folder)
    assert adapters("data", "check", str(folder)) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if ".jsonl:" in line]
    begins = ("2: Invalid JSON", "1: The mask of 'a yellow star with a black dot' is broken: ", "3: The image '")
    for line, begin in zip(lines, begins, strict=True):
        assert line.startswith(f"{folder}/samples.jsonl:{begin}")


def test_a_set_without_a_sample_is_exit_code_1(
    folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "samples.jsonl").write_text("\n" * 9, encoding="utf-8")
    assert adapters("data", "check", str(folder)) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "No sample can be used."


def test_one_id_for_different_images_is_reported_by_line(
    folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "samples.jsonl"
    lines = [json.loads(line) | {"image_id": "x"} for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert adapters("data", "check", str(folder)) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if ".jsonl:" in line] == [
        f"{file}:{number}: image_id: 'x' names the image 'images/000000.png' in line 1, and "
        f"'images/{number - 1:06}.png' here. Give different images different ids."
        for number in (2, 3, 4)
    ]


def test_an_image_outside_is_checked_if_asked(
    folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / "images" / "000000.png"
    image.rename(folder.parent / "outside.png")
    image.symlink_to(folder.parent / "outside.png")
    assert adapters("data", "check", str(folder)) == 1
    assert "samples.jsonl:1: The image" in capsys.readouterr().out
    assert adapters("data", "check", str(folder), "--allow-outside") == 0


def test_json_holds_the_same(folder: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    break_it(folder)
    assert adapters("data", "check", str(folder), "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [problem["place"] for problem in report.pop("problems")] == [
        f"{folder}/samples.jsonl:{line}" for line in (2, 1, 3)
    ]
    phrases = len(Folder(folder)[2].phrases)
    assert report == {
        "source": f"folder:path={folder}",
        "samples": 1,
        "images": 1,
        "phrases": phrases,
        "empty_masks": 0,
        "tags": {},
    }


def test_convert_writes_what_can_be_used_if_asked_and_lists_the_rest(
    folder: Path, tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    break_it(folder)
    out = tmp_path / "out"
    assert adapters("data", "convert", f"folder:path={folder},broken=skip", "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}: 1 samples, 3 left out\n"
    assert [line.partition("samples.jsonl:")[2][:1] for line in printed.err.splitlines()] == ["2", "1", "3"]
    assert [sample.id for sample in Folder(out)] == ["scene-7-3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "scnes:count=4"], "Did you mean 'scenes'?"),
        (["check", "nowhere"], "There is no data set 'nowhere'"),
        (["convert", "FOLDER", "--out", "FOLDER"], "already exists and is not an empty folder. Choose another path."),
        (["convert", "BROKEN", "--out", "new"], "samples.jsonl:2: Invalid JSON"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    arguments: list[str],
    message: str,
    folder: Path,
    adapters: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "BROKEN" in arguments:
        break_it(folder)
    arguments = [str(folder) if argument in ("FOLDER", "BROKEN") else argument for argument in arguments]
    assert adapters("data", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("new").exists()


def test_a_template_is_sound_as_it_is_and_shows_every_form_of_mask(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    assert adapters("data", "new", str(folder)) == 0
    written = {str(path) for path in folder.rglob("*") if path.is_file()}
    *files, hint = capsys.readouterr().out.splitlines()
    assert set(files) == written
    assert hint == f"Next: read {folder / 'README.md'}, then adapters data check {folder}"
    assert adapters("data", "check", str(folder)) == 0
    report = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[3:])
    assert report == {"samples": "2", "images": "2", "phrases": "5", "empty masks": "0", "problems": "0"}
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    masks = [phrase["mask"] for line in lines for phrase in line["phrases"]]
    assert {form for mask in masks for form in mask} == {"png", "polygons", "box", "size", "counts"}
    assert {type(mask["counts"]) for mask in masks if "counts" in mask} == {str, list}


def test_the_masks_of_a_template_lie_on_what_they_name(tmp_path: Path, adapters: Callable[..., int]) -> None:
    assert adapters("data", "new", str(tmp_path / "mine")) == 0
    samples = list(Folder(tmp_path / "mine"))
    assert [phrase.text for phrase in samples[1].phrases] == ["A red circle", "a yellow star", "a purple stripe"]
    for sample in samples:
        pixels = np.asarray(sample.image).astype(int)
        for phrase, mask in zip(sample.phrases, sample.masks, strict=True):
            inside = pixels[mask]
            share = (inside == np.median(inside, axis=0)).all(axis=1).mean()
            assert share > 0.96, phrase
        assert (pixels[~sample.masks.any(0)] == 225).all(axis=1).mean() > 0.99


def test_a_template_overwrites_nothing(
    tmp_path: Path, adapters: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert adapters("data", "new", str(tmp_path)) == 1
    assert "already exists and is not an empty folder. Choose another path." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
