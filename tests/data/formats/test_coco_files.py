"""COCO's images and masks, against pycocotools and by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from vlm_adapters.data.formats.coco_files import Instances, mask_of, open_image, read_json
from vlm_adapters.errors import DataError, ImageError

Mask = Callable[[object, tuple[int, int]], np.ndarray]
SIZE = (40, 60)
COORDINATES = st.floats(-5, 65, allow_nan=False).map(lambda value: round(value, 2))
POLYGONS = st.lists(st.lists(COORDINATES, min_size=3, max_size=8).map(lambda half: half * 2), min_size=1, max_size=3)


@settings(deadline=None)  # on a busy machine a thread may wait
@given(POLYGONS)
def test_polygons_are_those_of_pycocotools(by_pycocotools: Mask, polygons: list[list[float]]) -> None:
    found = mask_of(polygons, SIZE)
    assert found.dtype == np.bool_
    assert np.array_equal(found, by_pycocotools(polygons, SIZE))


def test_a_polygon_lands_where_its_corners_say() -> None:
    expected = np.zeros(SIZE, bool)
    expected[5:20, 10:30] = True
    expected[30:32, 0:4] = True
    polygons = [[10, 5, 30, 5, 30, 20, 10, 20], [0, 30, 4, 30, 4, 32, 0, 32]]
    assert np.array_equal(mask_of(polygons, SIZE), expected)


@settings(deadline=None)  # on a busy machine a thread may wait
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_are_read_packed_and_plain(seed: int, share: float) -> None:
    expected = np.random.default_rng(seed).random((7, 5)) < share
    packed = coco_mask.encode(np.asfortranarray(expected.astype(np.uint8)))
    flat = expected.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    plain = np.diff([0, *edges, flat.size]).tolist()
    for counts in (packed["counts"].decode(), plain):
        assert np.array_equal(mask_of({"size": [7, 5], "counts": counts}, (7, 5)), expected)


def test_a_broken_mask_is_reported(subtests: pytest.Subtests) -> None:
    cases: list[tuple[object, str]] = [
        (None, "it is None, neither polygons nor run lengths"),
        ([], "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "not a list of three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "not a list of three or more points"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a list of three or more points"),
        ([[1, 2, 3, 4, 5, "6"]], "not a list of three or more points"),
        ([1, 2, 3, 4, 5, 6], "the polygon 1 is not a list"),
        ([[1, 2, 3, 4, 5, 1e9]], "lies far outside the image of 40 x 60 pixels"),
        ({"size": [60, 40], "counts": [2400]}, r"its size is \[60, 40\], and the image is \[40, 60\]"),
        ({"size": [40, 60], "counts": [2399]}, "do not cover the 40 x 60 pixels"),
        ({"size": [40, 60], "counts": [2410, -10]}, "do not cover the 40 x 60 pixels"),
        ({"size": [40, 60], "counts": "0"}, "cover 0 of 40 x 60 pixels"),
        ({"size": [40, 60]}, "needs its run lengths in counts"),
    ]
    for segmentation, message in cases:
        with subtests.test(segmentation=segmentation), pytest.raises(DataError, match=message):
            mask_of(segmentation, SIZE)


def test_polygons_without_pycocotools_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DataError, match=r'Install it with pip install "vlm-adapters\[data\]"\.'):
        mask_of([[0, 0, 5, 0, 5, 5]], SIZE)
    assert mask_of({"size": [40, 60], "counts": [2400]}, SIZE).sum() == 0


def test_an_annotation_with_a_broken_mask_is_named(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "annotations": [{"id": 5, "image_id": 1, "segmentation": [[1, 2]]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"Annotation 5 of .*a\.json has a broken mask: the polygon \[1, 2\] is not"):
        Instances.read(tmp_path / "a.json").mask(5)


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}


def test_a_malformed_file_is_reported_by_entry(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases: list[tuple[object, str]] = [
        ("{", "cannot be read as JSON: .*Download it again"),
        ("[]", "has no list 'images'"),
        ({"images": [IMAGE]}, "has no list 'annotations'"),
        ({"images": [IMAGE, {"id": 2}], "annotations": []}, r"images\[1\] is not an object with id, file_name, height"),
        ({"images": [{**IMAGE, "height": 0}], "annotations": []}, "image 1 has no usable file_name, height and"),
        ({"images": [], "annotations": [{"id": 1.5, "image_id": 1}]}, r"annotations\[0\]: The id 1\.5 is not an int"),
    ]
    for content, message in cases:
        with subtests.test(content=content):
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / "a.json").write_text(text, encoding="utf-8")
            with pytest.raises(DataError, match=rf"a\.json.*{message}"):
                Instances.read(tmp_path / "a.json")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*a\.json\. Check the path\."):
        read_json(tmp_path / "a.json")


def write_turned(path: Path, size: tuple[int, int], orientation: int) -> Path:
    """A JPEG of `size` (H, W) as it is stored, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1]).save(path, exif=exif)
    return path


def test_an_image_of_the_size_of_its_masks_is_opened(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg", (40, 60)).size == (60, 40)
    # masks made on the upright image fit it
    assert open_image(write_turned(tmp_path / "b.jpg", (60, 40), 6), (40, 60)).size == (60, 40)


@pytest.mark.parametrize(
    ("stored", "orientation", "message"),
    [
        ((40, 60), 6, r"is 60 x 40 when upright, by its EXIF orientation 6, and its masks are 40 x 60 .* Remove the"),
        ((40, 60), 3, r"is 40 x 60 when upright, by its EXIF orientation 3, and its masks are 40 x 60 .* Remove the"),
        ((40, 61), 1, r"is 40 x 61, and its masks are 40 x 60 as they stand in the file .* Give the image for"),
    ],
)
def test_an_image_that_may_not_fit_its_masks_is_refused(
    stored: tuple[int, int], orientation: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        open_image(write_turned(tmp_path / "a.jpg", stored, orientation), (40, 60))


def test_a_missing_image_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg' does not exist"):
        open_image(tmp_path / "a.jpg", (40, 60))
