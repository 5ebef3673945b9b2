"""Reading a set whose samples may be broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.check import check_dataset
from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.open import open_dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import AdapterError, DataError, ImageError
from vlm_adapters.prompt import Phrase


class Partly(Dataset):
    """Five samples of two images, of which some raise."""

    source = "partly"
    problems = (Problem("file:1", "broken entry"),)

    def __init__(self, errors: dict[int, AdapterError | ValueError]) -> None:
        self.errors = errors

    def __len__(self) -> int:
        return 5

    def sample(self, index: int) -> Sample:
        if index in self.errors:
            raise self.errors[index]
        masks = np.zeros((2, 4, 6), bool)
        masks[0, 1, 2] = True
        return Sample(
            id=str(index),
            image_id=str(index % 2),
            text="a b",
            phrases=(Phrase("a", 0, 1), Phrase("b", 2, 3)),
            phrase_tags=(("thing", "plural"), ("thing",)),
            image=Image.new("RGB", (6, 4)),
            masks=masks,
        )


def test_a_broken_sample_is_an_error_that_says_where() -> None:
    reading = read_samples(Partly({1: ImageError("No image.")}), range(5))
    assert next(reading)[0] == 0
    with pytest.raises(ImageError, match=r"^partly\[1\]: No image\.$"):
        next(reading)


def test_a_broken_sample_is_a_problem_where_the_set_skips_it() -> None:
    dataset = Partly({1: ImageError("No image."), 3: DataError("No mask.")})
    dataset.skips_broken = True
    read = dict(read_samples(dataset, [4, 3, 1]))
    assert list(read) == [4, 3, 1]
    assert isinstance(read[4], Sample)
    assert read[3] == Problem("partly[3]", "No mask.")
    assert read[1] == Problem("partly[1]", "No image.")


def test_a_mistake_of_the_program_is_never_skipped() -> None:
    dataset = Partly({0: ValueError("a bug")})
    dataset.skips_broken = True
    with pytest.raises(ValueError, match="a bug"):
        list(read_samples(dataset, range(5)))


def test_a_part_of_a_part_knows_its_places() -> None:
    dataset = Partly({3: DataError("No mask.")})
    dataset.skips_broken = True
    part = dataset[1:][::2]
    assert part.skips_broken
    assert [part.place(index) for index in range(len(part))] == ["partly[1]", "partly[3]"]
    assert [part.annotation(0).id, dict(read_samples(part, range(2)))[1]] == ["1", Problem("partly[3]", "No mask.")]


def test_a_report_counts_what_can_be_used_and_lists_what_cannot() -> None:
    dataset = Partly({1: ImageError("No image.")})
    dataset.skips_broken = True
    report = check_dataset(dataset, range(5))
    assert (report.samples, report.images, report.phrases, report.empty_masks) == (4, 2, 8, 4)
    assert report.tags == {"plural": 4, "thing": 8}
    assert report.problems == (Problem("file:1", "broken entry"), Problem("partly[1]", "No image."))


def test_a_fingerprint_changes_with_masks_and_images_and_nothing_else(tmp_path: Path) -> None:
    write_folder(Scenes(3, seed=3), tmp_path / "plain", range(3))
    dataset = open_dataset(f"folder:path={tmp_path / 'plain'}")
    before = dataset.fingerprint()
    assert open_dataset(dataset.source).fingerprint() == before
    lines = (tmp_path / "plain" / "samples.jsonl").read_text()
    (tmp_path / "plain" / "samples.jsonl").write_text(lines.replace('"id": "', '"id": "other-', 1))
    changed = open_dataset(dataset.source).fingerprint()
    (tmp_path / "plain" / "samples.jsonl").write_text(lines)
    image = dataset.image_file(2)
    assert image is not None
    image.write_bytes(image.read_bytes() + b" ")
    assert len({before, changed, open_dataset(dataset.source).fingerprint()}) == 3


def test_scenes_of_one_seed_have_one_fingerprint() -> None:
    assert Scenes(3, seed=3).fingerprint() == Scenes(3, seed=3).fingerprint()
    assert Scenes(3, seed=3).fingerprint() != Scenes(3, seed=4).fingerprint()
