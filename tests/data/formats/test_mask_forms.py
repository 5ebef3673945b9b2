"""The forms in which a mask of the plain form is written by hand, against pycocotools, PIL and numpy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits

SIZE = (30, 40)
TRIANGLE = [5.0, 4.0, 33.5, 9.0, 12.0, 27.0]


def written(folder: Path, *masks: object, **changes: object) -> Path:
    """A set of one sample, with a phrase `thing N` for every mask."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", SIZE[::-1], "red").save(folder / "a.png")
    words = [f"thing {index}" for index in range(len(masks))]
    phrases = [{"text": word, "mask": mask} for word, mask in zip(words, masks, strict=True)]
    line = {"id": "1", "image": "a.png", "text": " , ".join(words), "phrases": phrases} | changes
    (folder / "samples.jsonl").write_text(json.dumps(line), encoding="utf-8")
    return folder


def masks_of(folder: Path, *masks: object) -> np.ndarray[Any, Any]:
    return open_dataset(written(folder, *masks))[0].masks


def ellipse() -> np.ndarray[Any, Any]:
    image = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(image).ellipse([6, 8, 30, 22], fill=1)
    return np.asarray(image)


def test_polygons_are_those_of_pycocotools_and_their_union_is_the_mask(
    tmp_path: Path, by_pycocotools: Callable[[object, tuple[int, int]], np.ndarray[Any, Any]]
) -> None:
    second = [20, 20, 38, 20, 38, 28, 20, 28]
    (mask,) = masks_of(tmp_path, {"polygons": [TRIANGLE, second]})
    assert np.array_equal(mask, by_pycocotools([TRIANGLE, second], SIZE))


def test_a_box_is_filled_up_to_its_right_and_bottom_edge(tmp_path: Path) -> None:
    expected = np.zeros((3, *SIZE), bool)
    expected[0, 4:10, 3:12] = True
    expected[1, 20:, 30:] = True  # it reaches out of the image
    expected[2, 5:7, 2:4] = True  # the pixels whose centres lie in it
    boxes = ([3, 4, 12, 10], [30, 20, 99, 99], [1.6, 5.5, 4.4, 7.4])
    assert np.array_equal(masks_of(tmp_path, *({"box": box} for box in boxes)), expected)


def test_run_lengths_are_compressed_or_not(tmp_path: Path) -> None:
    compressed = coco_mask.encode(np.asfortranarray(ellipse().astype(np.uint8)))["counts"].decode()
    flat = ellipse().ravel(order="F")
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    plain = np.diff(edges).tolist()
    forms = ({"size": list(SIZE), "counts": counts} for counts in (compressed, plain))
    assert np.array_equal(masks_of(tmp_path, *forms), np.stack([ellipse()] * 2))


def as_png(mode: str) -> Image.Image:
    """The ellipse as a person may save it: in the smallest value that the mode has, or in a colour."""
    inside = ellipse()
    if mode == "I;16":
        values = np.where(inside, 1, 0).astype(np.uint16)
        values[12, 18] = 60_000
        return Image.fromarray(values)
    if mode == "1":
        return Image.fromarray(inside)
    if mode == "P":
        image = Image.fromarray(inside.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.frombytes(inside.astype(np.uint8).tobytes())
        return image
    if mode == "RGBA":  # white and transparent around it
        return Image.fromarray(np.where(inside[..., None], (200, 0, 0, 255), (255, 255, 255, 0)).astype(np.uint8))
    values = inside.astype(np.uint8)
    return Image.fromarray(values if mode == "L" else np.stack([values * 0, values * 0, values], -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_png_is_inside_where_it_is_neither_black_nor_transparent(mode: str, tmp_path: Path) -> None:
    as_png(mode).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == mode
    assert np.array_equal(masks_of(tmp_path, {"png": "mask.png"})[0], ellipse())


def test_ignored_pixels_are_written_in_the_same_forms(tmp_path: Path) -> None:
    sample = open_dataset(written(tmp_path, {"box": [0, 0, 4, 4]}, ignored={"box": [0, 0, 40, 1]}))[0]
    assert sample.ignored is not None
    assert sample.ignored[0].all()
    assert not sample.ignored[1:].any()


def test_an_image_without_an_id_has_its_name_as_its_id(tmp_path: Path) -> None:
    assert open_dataset(written(tmp_path, {"box": [0, 0, 4, 4]})).annotation(0).image_id == "a.png"


BROKEN: list[tuple[object, str]] = [
    ({}, "give one of png, polygons, box, or size and counts together"),
    ({"box": [0, 0, 1, 1], "png": "a.png"}, "give one of png, polygons, box"),
    ({"counts": [1200]}, "size and counts together"),
    ({"box": [0, 0, 1]}, "box.3: Field required"),
    ({"polygons": []}, "polygons: List should have at least 1 item"),
    ({"png": "../mask.png"}, "The mask of 'thing 0': '../mask.png' is outside the folder"),
    ({"png": "/etc/passwd"}, "is outside the folder"),
    ("mask.png", "mask: Input should be an object"),
]


@pytest.mark.parametrize(("mask", "message"), BROKEN)
def test_what_no_form_has_is_named_by_file_and_line(mask: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"samples\.jsonl:1: .*{re.escape(message)}"):
        open_dataset(written(tmp_path / "set", mask))


UNUSABLE: list[tuple[object, str]] = [
    ({"box": [5, 5, 5, 9]}, r"the box \[5\.0, 5\.0, 5\.0, 9\.0\] has no area\. Give x0 < x1 and y0 < y1"),
    ({"box": [50, 5, 60, 9]}, "lies outside the image of 30 x 40 pixels"),
    ({"polygons": [[1, 2, 3, 4, 5]]}, "is not a list of three or more points x, y"),
    ({"polygons": [[1, 2, 9e9, 4, 5, 6]]}, "lies far outside the image"),
    ({"size": [30, 40], "counts": [1199]}, "run lengths do not cover the 30 x 40 pixels"),
    ({"size": [30, 40], "counts": [-1, 1201]}, "run lengths do not cover"),
    ({"size": [40, 30], "counts": [1200]}, r"it is 40 x 30, and the image is 30 x 40 \(height x width\)\. Give masks"),
    ({"png": "gone.png"}, r"the file '.*gone\.png' cannot be read: No such file"),
    ({"png": "small.png"}, r"small\.png': it is 3 x 4, and the image is 30 x 40"),
    ({"png": "mask.jpg"}, r"mask\.jpg': it is not a PNG\. Save masks as PNG"),
    ({"png": "half.png"}, r"half\.png': it is a damaged PNG: "),
    ({"png": "link.png"}, "is a link to .*, outside the folder"),
]


@pytest.mark.parametrize(("mask", "message"), UNUSABLE)
def test_a_mask_that_cannot_be_used_is_named(mask: object, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    dataset = open_dataset(written(folder, mask))
    Image.fromarray(ellipse()).save(folder / "mask.png")
    Image.new("L", (4, 3)).save(folder / "small.png")
    Image.new("L", (40, 30)).save(folder / "mask.jpg")
    (folder / "half.png").write_bytes((folder / "mask.png").read_bytes()[:-30])
    (tmp_path / "outside.png").write_bytes((folder / "mask.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match=rf"The mask of 'thing 0' is broken: .*{message}"):
        dataset.sample(0)


def test_outlines_are_bounded_over_all_masks_of_a_sample(tmp_path: Path) -> None:
    folder = written(tmp_path, {"polygons": [TRIANGLE]}, {"polygons": [TRIANGLE]})
    assert len(open_dataset(folder, limits=Limits(max_outline=200))[0].masks) == 2
    with pytest.raises(DataError, match="The outlines of its masks are longer than 100 pixels"):
        open_dataset(folder, limits=Limits(max_outline=100)).sample(0)


def test_the_fingerprint_changes_with_a_file_of_a_mask(tmp_path: Path) -> None:
    def fingerprint(mask: Image.Image) -> str:
        dataset: Dataset = open_dataset(written(tmp_path, {"png": "mask.png"}))
        mask.save(tmp_path / "mask.png")
        return dataset.fingerprint()

    first = fingerprint(Image.fromarray(ellipse()))
    assert first == fingerprint(Image.fromarray(ellipse()))
    assert first != fingerprint(Image.new("1", SIZE[::-1]))
