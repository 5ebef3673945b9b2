"""Data sets from and to `datasets`, read back by that library itself, and to a stand-in for FiftyOne.

FiftyOne needs a MongoDB; the stand-in keeps what its documented constructors are given, and refuses any other argument.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data import Dataset, from_datasets, open_dataset, to_datasets, to_fiftyone, write_folder
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, OptionError, PhraseError
from vlm_adapters.prompt import Phrase

FIELDS = ("id", "image_id", "text", "phrases", "phrase_ids", "phrase_tags")


class One(Dataset):
    """One sample with everything that a sample can have, of which a phrase is absent."""

    source = "one"

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        masks = np.zeros((2, 30, 40), bool)
        masks[0, 4:10, 3:12] = True
        return Sample(
            id=f"é{index}",
            image_id="7",
            text="a dog by a dog",
            phrases=(Phrase("a dog", 9, 14), Phrase("by", 6, 8)),
            phrase_ids=("3", "4"),
            phrase_tags=(("thing", "small"), ()),
            image=Image.new("RGB", (40, 30), "red"),
            masks=masks,
            ignored=masks[0],
        )


def assert_equal(left: Dataset, right: Dataset) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert [getattr(one, name) for name in FIELDS] == [getattr(other, name) for name in FIELDS]
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert np.array_equal(one.masks, other.masks)
        assert (one.ignored is None) == (other.ignored is None)
        assert one.ignored is None or np.array_equal(one.ignored, other.ignored)


def scenes(folder: Path) -> Dataset:
    write_folder(open_dataset("scenes:count=3,seed=7"), folder, range(3))
    return open_dataset(folder)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_set_comes_back_equal_from_datasets(is_file: bool, tmp_path: Path) -> None:  # noqa: FBT001
    dataset = scenes(tmp_path / "set") if is_file else One()
    rows = to_datasets(dataset)
    rows.save_to_disk(tmp_path / "saved")
    assert_equal(from_datasets(rows), dataset)
    assert_equal(from_datasets(datasets.load_from_disk(tmp_path / "saved")), dataset)


def test_the_columns_are_those_that_datasets_shows_as_images() -> None:
    rows = to_datasets(One())
    assert {name for name, feature in rows.features.items() if feature == datasets.Image()} == {"image", "ignored"}
    row = rows[0]
    assert (row["phrases"], row["spans"]) == (["a dog", "by"], [[9, 14], [6, 8]])
    assert [mask.mode for mask in row["masks"]] == ["L", "L"]
    assert np.array_equal(np.asarray(row["masks"][0]), One()[0].masks[0] * np.uint8(255))


def test_a_jpeg_is_passed_on_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg")
    line = '{"id": "1", "image": "a.jpg", "text": "x", "phrases": [{"text": "x", "mask": {"box": [0, 0, 4, 4]}}]}'
    (tmp_path / "samples.jsonl").write_text(line)
    rows = to_datasets(open_dataset(tmp_path)).cast_column("image", datasets.Image(decode=False))
    assert rows[0]["image"]["bytes"] == (tmp_path / "a.jpg").read_bytes()
    assert from_datasets(rows)[0].image.size == (40, 30)


def test_some_of_a_set_are_converted() -> None:
    assert to_datasets(open_dataset("scenes:count=4,seed=7"), [2, 0])["id"][:] == ["scene-7-2", "scene-7-0"]


PICTURE = Image.new("RGB", (40, 30))


def test_rows_of_others_need_an_image_phrases_and_masks_only() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 5:8] = 1
    rows = [{"photo": PICTURE, "words": ["dog", "cat"], "truth": [mask, Image.fromarray(mask)]}]
    (sample,) = from_datasets(rows, image="photo", phrases="words", masks="truth")
    assert (sample.id, sample.image_id, sample.text) == ("0", "0", "dog, cat")
    assert np.array_equal(sample.masks, np.stack([mask > 0] * 2))


def test_one_phrase_needs_no_list() -> None:
    (sample,) = from_datasets([{"image": PICTURE, "text": "a dog runs", "phrases": "dog", "masks": np.eye(30, 40)}])
    assert sample.phrases == (Phrase("dog", 2, 5),)
    assert np.array_equal(sample.masks[0], np.eye(30, 40, dtype=bool))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"train": [], "test": []}, r"It holds the splits \['train', 'test'\]\. Give one of them"),
        ([], "There is no row"),
        ([{"image": PICTURE}], r"There is no column 'phrases' among \['image'\]\. Name it with image=, phrases= or"),
        ([{"image": PICTURE, "phrases": ["a", "b"], "masks": [1]}], r"the phrases \['a', 'b'\] and 1 masks"),
        (
            [{"image": PICTURE, "phrases": ["a"], "masks": [np.eye(3)]}],
            "mask of 'a' is broken: it is 3 x 3, and the im",
        ),
        (
            [{"image": PICTURE, "phrases": "a", "masks": np.ones(3)}],
            r"mask of 'a' is <class 'numpy.ndarray'>, not an im",
        ),
        ([{"image": PICTURE, "phrases": [" "], "masks": [np.eye(3)]}], "A label is blank"),
    ],
)
def test_rows_that_cannot_be_used_are_an_error(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_datasets(rows).sample(0)


def test_a_phrase_that_is_not_in_its_text_is_an_error() -> None:
    with pytest.raises(PhraseError, match="The phrase 'cat' is not in the text 'a dog'"):
        from_datasets([{"image": PICTURE, "text": "a dog", "phrases": ["cat"], "masks": [1]}]).sample(0)


def test_the_fingerprint_of_rows_changes_with_a_pixel_of_a_mask() -> None:
    def fingerprint(mask: np.ndarray[Any, Any]) -> str:
        return from_datasets([{"image": PICTURE, "phrases": "a", "masks": mask}]).fingerprint()

    mask = np.eye(30, 40, dtype=bool)
    first = fingerprint(mask.copy())
    assert first == fingerprint(mask.copy())
    mask[0, 0] = False
    assert first != fingerprint(mask)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(OptionError, match=r'pip install "vlm-adapters\[datasets\]"'):
        to_datasets(One())
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(OptionError, match=r"fiftyone is not installed\. Install it with pip install fiftyone\."):
        to_fiftyone(One())


@dataclass
class Detection:
    """As `fiftyone.Detection`: a box `[left, top, width, height]` in shares of the image, and a mask within it."""

    label: str
    bounding_box: list[float]
    mask: np.ndarray[Any, Any]
    tags: list[str]


@dataclass
class Detections:
    """As `fiftyone.Detections`."""

    detections: list[Detection]


class FiftyOneSample(dict[str, Any]):
    """As `fiftyone.Sample`: a path, and any field."""

    def __init__(self, filepath: str, **fields: object) -> None:
        super().__init__(filepath=filepath, **fields)


@dataclass
class FiftyOneDataset:
    """As `fiftyone.Dataset`."""

    name: str | None
    samples: list[FiftyOneSample] = field(default_factory=list)

    def add_samples(self, samples: list[FiftyOneSample]) -> None:
        self.samples += samples


@pytest.fixture
def _fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fiftyone")
    vars(module).update(Detection=Detection, Detections=Detections, Sample=FiftyOneSample, Dataset=FiftyOneDataset)
    monkeypatch.setitem(sys.modules, "fiftyone", module)


@pytest.mark.usefixtures("_fiftyone")
def test_fiftyone_gets_every_phrase_with_its_box_and_the_mask_within(tmp_path: Path) -> None:
    dataset = scenes(tmp_path / "set")
    found = to_fiftyone(dataset, "mine")
    assert found.name == "mine"
    for sample, shown in zip(dataset, found.samples, strict=True):
        assert Path(shown["filepath"]).is_absolute()
        with Image.open(shown["filepath"]) as image:
            assert image.size == sample.image.size
        assert (shown["text"], shown["source_id"], shown["absent"]) == (sample.text, sample.id, [])
        detections = shown["ground_truth"].detections
        assert [one.label for one in detections] == [phrase.text for phrase in sample.phrases]
        for one, mask in zip(detections, sample.masks, strict=True):
            left, top, width, height = np.multiply(one.bounding_box, sample.image.size * 2).round().astype(int)
            drawn = np.zeros_like(mask)
            drawn[top : top + height, left : left + width] = one.mask
            assert np.array_equal(drawn, mask)


@pytest.mark.usefixtures("_fiftyone")
def test_fiftyone_lists_absent_phrases_and_keeps_tags(tmp_path: Path) -> None:
    write_folder(One(), tmp_path / "set", range(1))
    (shown,) = to_fiftyone(open_dataset(tmp_path / "set")).samples
    assert shown["absent"] == ["by"]
    assert [one.tags for one in shown["ground_truth"].detections] == [["thing", "small"]]


@pytest.mark.usefixtures("_fiftyone")
def test_fiftyone_takes_images_that_are_files_only() -> None:
    with pytest.raises(DataError, match=r"The images of scenes:.* are no files\. Write them first: adapters data conv"):
        to_fiftyone(open_dataset("scenes:count=1,seed=7"))
