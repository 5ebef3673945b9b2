"""ReasonSeg in its published form, and its polygons against those that OpenCV drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.data.formats.filled_polygons import fill_polygon
from vlm_adapters.data.formats.reasonseg import Shape, painted
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.errors import DataError, ImageError
from vlm_adapters.evaluation.protocols import open_for_protocol
from vlm_adapters.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from conftest import ReasonSegSet

OPENCV: dict[str, Any] = json.loads(Path(__file__).with_name("opencv_polygons.json").read_text(encoding="utf-8"))
SIZE: tuple[int, int] = tuple(OPENCV["size"])


def decoded(counts: str) -> np.ndarray:
    return np.asarray(coco.decode({"size": list(SIZE), "counts": counts.encode()})).astype(bool)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_a_polygon_has_the_pixels_that_opencv_gives_it() -> None:
    assert len(OPENCV["polygons"]) == 60
    for drawn in OPENCV["polygons"]:
        points = np.array(drawn["points"]).astype(np.int64)
        assert np.array_equal(fill_polygon(points, SIZE), decoded(drawn["counts"])), drawn["points"]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_an_annotation_is_painted_as_by_the_published_reader() -> None:
    assert len(OPENCV["annotations"]) == 20
    for annotation in OPENCV["annotations"]:
        shapes = [Shape.model_validate(shape) for shape in annotation["shapes"]]
        target, ignored = painted(shapes, SIZE, DEFAULT_LIMITS)
        assert np.array_equal(target, decoded(annotation["target"]))
        assert np.array_equal(np.zeros(SIZE) if ignored is None else ignored, decoded(annotation["ignored"]))


def test_the_first_text_of_every_image_is_a_sample(reasonseg: ReasonSegSet) -> None:
    first, second = open_dataset(reasonseg.uri())
    assert (first.id, first.image_id, first.text) == ("1_a/0", "1_a", "the thing that one would sit on")
    assert (second.id, second.text) == ("2_b/0", "the seat")
    assert [sample.phrase_tags for sample in (first, second)] == [(("long query",),), (("short query",),)]
    assert [phrase.span for phrase in first.phrases] == [(0, len(first.text))]
    expected = np.zeros((first.image.height, first.image.width), bool)
    expected[10:50, 10:60] = True
    expected[20:30, 20:30] = False
    assert np.array_equal(first.masks, expected[None])
    hole = np.zeros_like(expected)
    hole[20:30, 20:30] = True
    assert first.ignored is not None
    assert np.array_equal(first.ignored, hole)
    assert np.array_equal(np.asarray(first.image), np.asarray(Image.open(reasonseg.folder / "1_a.jpg")))


def test_a_smaller_target_lies_on_a_larger_region_that_is_ignored(reasonseg: ReasonSegSet) -> None:
    sample = open_dataset(reasonseg.uri())[1]
    assert sample.ignored is not None
    assert (sample.masks.sum(), sample.masks[0, 50:60, 50:60].all()) == (100, True)
    assert (sample.ignored.sum(), (sample.ignored & sample.masks[0]).any()) == (60 * 60 - 100, False)


def test_all_texts_of_an_image_are_samples_where_that_is_asked_for(reasonseg: ReasonSegSet) -> None:
    dataset = open_dataset(reasonseg.uri(sentences="all"))
    assert [sample.id for sample in dataset] == ["1_a/0", "1_a/1", "2_b/0"]
    assert dataset.place(1) == f"{reasonseg.folder / '1_a.json'}[1]"
    assert open_dataset(dataset.source).source == dataset.source
    assert len(open_for_protocol(reasonseg.uri(), "isolated", "all")) == 3


def test_a_file_in_the_encoding_of_windows_is_read(reasonseg: ReasonSegSet) -> None:
    content = json.dumps({**reasonseg.files["1_a"], "text": ["the person\u2019s seat"]}, ensure_ascii=False)
    (reasonseg.folder / "1_a.json").write_bytes(content.encode("cp1252"))
    assert open_dataset(reasonseg.uri())[0].text == "the person\u2019s seat"


def test_a_fingerprint_changes_with_a_polygon(reasonseg: ReasonSegSet) -> None:
    before = open_dataset(reasonseg.uri()).fingerprint()
    reasonseg.files["2_b"]["shapes"][0]["points"][0][0] += 1
    assert open_dataset(reasonseg.write().uri()).fingerprint() != before


def test_a_broken_file_is_reported_by_its_name(subtests: pytest.Subtests, reasonseg: ReasonSegSet) -> None:
    shape = reasonseg.files["1_a"]["shapes"][0]
    cases: list[tuple[dict[str, object], str]] = [
        ({"text": []}, "text: List should have at least 1 item"),
        ({"text": "the seat"}, "text: Input should be a valid list"),
        ({"text": [" "]}, "Text 0 is blank"),
        ({"text": ["\ud83d"]}, "holds half of a character"),
        ({"is_sentence": "yes"}, "is_sentence: Input should be a valid boolean"),
        ({"shapes": [{**shape, "points": []}]}, r"shapes\.0\.points: List should have at least 1 item"),
        ({"shapes": [{**shape, "points": [[1]]}]}, r"shapes\.0\.points\.0: List should have at least 2 items"),
        ({"shapes": [{**shape, "points": [[1, 2, 3]]}]}, r"shapes\.0\.points\.0: List should have at most 2 items"),
        ({"shapes": [{**shape, "points": [[1, float("nan")]]}]}, "Input should be a finite number"),
        ({"shapes": [{"points": [[1, 2]]}]}, r"shapes\.0\.label: Field required"),
        ({"shapes": None}, "shapes: Input should be a valid list"),
    ]
    sound = reasonseg.files["1_a"]
    for change, message in cases:
        with subtests.test(change=change):
            reasonseg.files["1_a"] = {**sound, **change}
            with pytest.raises(DataError, match=rf"1_a\.json: .*{message}"):
                open_dataset(reasonseg.write().uri())
            dataset = open_skipping(reasonseg.uri())
            assert (len(dataset), len(dataset.problems)) == (1, 1)


def test_polygons_beyond_bounds_are_errors_of_their_sample(subtests: pytest.Subtests, reasonseg: ReasonSegSet) -> None:
    cases: list[tuple[list[list[float]], Limits, str]] = [
        ([[0, 0], [1e9, 5], [3, 3]], DEFAULT_LIMITS, "reaches 1,000,000,000 pixels out of the image"),
        ([[-1e30, 0], [1, 5], [3, 3]], DEFAULT_LIMITS, "pixels out of the image"),
        ([[0, 0], [100, 0], [100, 100]], Limits(max_outline=200), "outlines of over 200 pixels"),
    ]
    for points, limits, message in cases:
        with subtests.test(points=points):
            reasonseg.files["1_a"]["shapes"] = [{"label": "target", "points": points}]
            dataset = open_dataset(reasonseg.write().uri(), limits=limits)
            with pytest.raises(DataError, match=message):
                dataset.sample(0)


def test_points_outside_the_image_draw_what_is_inside(reasonseg: ReasonSegSet) -> None:
    reasonseg.files["1_a"]["shapes"] = [{"label": "target", "points": [[-9, -9], [500, -9], [500, 5], [-9, 5]]}]
    sample = open_dataset(reasonseg.write().uri())[0]
    assert (sample.masks[0, :6].all(), sample.masks[0, 6:].any()) == (True, False)
    reasonseg.files["1_a"]["shapes"] = [{"label": "target", "points": [[-9, -9], [-5, -9], [-5, -2]]}]
    assert not open_dataset(reasonseg.write().uri())[0].masks.any()


def test_images_and_json_files_come_in_pairs(reasonseg: ReasonSegSet, tmp_path: Path) -> None:
    (reasonseg.folder / "1_a.jpg").rename(reasonseg.folder / "3_c.jpg")
    dataset = open_skipping(reasonseg.uri())
    assert [problem.place for problem in dataset.problems] == [f"{reasonseg.folder}/3_c.json"]
    assert "There is no file" in dataset.problems[0].message
    with pytest.raises(ImageError, match=r"1_a\.jpg' does not exist"):
        dataset.sample(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no JSON file\. Give the folder of a split, such as ReasonSeg/val"):
        open_dataset(reasonseg.uri(path=tmp_path / "empty"))


def test_a_link_out_of_the_folder_is_refused(reasonseg: ReasonSegSet, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secret") / "a.jpg"
    (reasonseg.folder / "1_a.jpg").rename(secret)
    (reasonseg.folder / "1_a.jpg").symlink_to(secret)
    with pytest.raises(DataError, match=r"is a link to .*, outside the folder"):
        open_dataset(reasonseg.uri()).sample(0)


def test_it_is_checked_and_converted_with_what_is_ignored(reasonseg: ReasonSegSet, tmp_path: Path) -> None:
    checked = CliRunner().invoke(app, ["data", "check", reasonseg.uri(), "--json"])
    report = json.loads(checked.stdout)
    assert (checked.exit_code, report["samples"], report["tags"]) == (0, 2, {"long query": 1, "short query": 1})
    plain = tmp_path / "plain"
    assert CliRunner().invoke(app, ["data", "convert", reasonseg.uri(), "--out", str(plain)]).exit_code == 0
    for sample, again in zip(open_dataset(reasonseg.uri()), open_dataset(plain), strict=True):
        assert (again.id, again.text, again.phrase_tags) == (sample.id, sample.text, sample.phrase_tags)
        assert np.array_equal(again.masks, sample.masks)
        assert sample.ignored is not None
        assert again.ignored is not None
        assert np.array_equal(again.ignored, sample.ignored)
