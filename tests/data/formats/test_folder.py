"""The plain form: written from any set, read back equal, with the line of every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.folder import Folder
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, ImageError, OutputError
from vlm_adapters.prompt import Phrase

if TYPE_CHECKING:
    from conftest import InstancesSet, PngSet, RefCocoSet

FIELDS = ("id", "image_id", "text", "phrases", "phrase_ids", "phrase_tags")


def assert_equal(left: Dataset, right: Dataset) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert [getattr(one, name) for name in FIELDS] == [getattr(other, name) for name in FIELDS]
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
        assert np.array_equal(one.masks, other.masks)


def convert(dataset: Dataset, out: Path) -> Dataset:
    assert write_folder(dataset, out, range(len(dataset))) == ()
    return open_dataset(out)


def test_every_kind_of_set_is_read_back_equal(
    refcoco: RefCocoSet, png: PngSet, instances: InstancesSet, tmp_path: Path
) -> None:
    uris = ["scenes:count=3,seed=7", png.uri(), instances.uri(), refcoco.uri(), refcoco.uri(form="packed")]
    for index, uri in enumerate(uris):
        dataset = open_dataset(uri)
        written = convert(dataset, tmp_path / f"plain{index}")
        assert_equal(dataset, written)
        assert_equal(written, convert(written, tmp_path / f"again{index}"))


def test_a_line_is_what_it_is_documented_to_be(png: PngSet, tmp_path: Path) -> None:
    convert(open_dataset(png.uri()), tmp_path / "plain")
    first = json.loads((tmp_path / "plain" / "samples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    phrases = first.pop("phrases")
    assert first == {
        "id": "1/0",
        "image": "images/000000.jpg",
        "image_id": "1",
        "text": "Here is a dog and the man on grass . Everything under the sky .",
    }
    expected = coco_mask.encode(np.asfortranarray((png.segments[1] == 7).astype(np.uint8)))
    assert phrases[0] == {
        "span": [8, 13],
        "mask": {"size": [40, 60], "counts": expected["counts"].decode()},
        "id": "7",
        "tags": ["thing", "singular"],
    }


def test_an_image_of_several_samples_is_written_once_as_it_was(refcoco: RefCocoSet, tmp_path: Path) -> None:
    convert(open_dataset(refcoco.uri()), tmp_path / "plain")
    files = sorted((tmp_path / "plain" / "images").iterdir())
    assert [file.name for file in files] == ["000000.jpg", "000001.jpg"]
    for number, file in enumerate(files, start=1):
        assert file.read_bytes() == (refcoco.images / f"COCO_train2014_{number:012}.jpg").read_bytes()


def line(**changes: object) -> dict[str, Any]:
    mask = {
        "size": [3, 4],
        "counts": coco_mask.encode(np.asfortranarray(np.eye(3, 4, dtype=np.uint8)))["counts"].decode(),
    }
    return {
        "id": "a",
        "image": "a.png",
        "image_id": "1",
        "text": "a dog",
        "phrases": [{"span": [0, 5], "mask": mask}],
    } | changes


def write(folder: Path, *lines: object) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    Image.new("RGB", (4, 3), "red").save(folder / "a.png")
    return folder


def test_a_folder_written_by_hand_is_read(tmp_path: Path) -> None:
    (sample,) = open_dataset(write(tmp_path / "set", line(), ""))
    assert (sample.id, sample.image_id, sample.phrases) == ("a", "1", (Phrase("a dog", 0, 5),))
    assert (sample.phrase_ids, sample.phrase_tags) == ((), ())
    assert np.array_equal(sample.masks, np.eye(3, 4, dtype=bool)[None])
    assert sample.image.getpixel((0, 0)) == (255, 0, 0)


def test_images_that_other_programs_would_show_differently_become_png(tmp_path: Path) -> None:
    lines = [line(id=name, image=name, image_id=name) for name in ("turned.jpg", "grey.png", "clear.png")]
    write(tmp_path / "set", *lines)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(4, 3, 3)).save(tmp_path / "set" / "turned.jpg", exif=exif)
    Image.new("L", (4, 3), 7).save(tmp_path / "set" / "grey.png")
    Image.new("RGBA", (4, 3), (9, 9, 9, 100)).save(tmp_path / "set" / "clear.png")
    assert_equal(open_dataset(tmp_path / "set"), convert(open_dataset(tmp_path / "set"), tmp_path / "plain"))
    for file in (tmp_path / "plain" / "images").iterdir():
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (4, 3))
            assert not image.getexif()


class Empty(Dataset):
    """One sample whose mask has no pixel, with tags of which one phrase has none."""

    source = "empty"

    def __len__(self) -> int:
        return 1

    def sample(self, index: int) -> Sample:
        return Sample(
            id=str(index),
            image_id="é",
            text="ein Hünd 😀",
            phrases=(Phrase("Hünd", 4, 8), Phrase("😀", 9, 10)),
            phrase_tags=((), ("face", "x")),
            image=Image.new("RGB", (5, 2)),
            masks=np.zeros((2, 2, 5), bool),
        )


def test_empty_masks_and_phrases_without_tags_are_kept(tmp_path: Path) -> None:
    assert_equal(Empty(), convert(Empty(), tmp_path / "plain"))


def test_a_broken_line_is_reported_by_its_number(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases: list[tuple[object, str]] = [
        ("{", "Invalid JSON: "),
        (line(id=1), "id: Input should be a valid string"),
        (line(extra=1), "extra: Extra inputs are not permitted"),
        (line(text=None), "text: Input should be a valid string"),
        (line(phrases=[]), "phrases: .* at least 1 item"),
        (line(phrases=[{"span": [0, 5]}]), r"phrases\.0\.mask: Field required"),
        (line(text="a"), r"The span \(0, 5\) does not lie in the text of 1 characters"),
        (line(text="     "), r"The span \(0, 5\) holds only white space"),
        (line(image="/etc/a.png"), "image: '/etc/a.png' is outside the folder"),
        (line(image="x/../../a.png"), "is outside the folder. Give a path relative to the folder"),
        (line(phrases=[line()["phrases"][0], {**line()["phrases"][0], "id": "7"}]), "Some phrases have id and others"),
        (line(phrases=[line()["phrases"][0], {**line()["phrases"][0], "tags": []}]), "Some phrases have tags and oth"),
        (line(id="good"), "id: 'good' is already the id of line 1"),
        (
            line(image="b.png"),
            r"image_id: '1' names the image 'a\.png' in line 1, and 'b\.png' here\. Give different images",
        ),
    ]
    for broken, message in cases:
        with subtests.test(broken=broken):
            write(tmp_path / "set", line(id="good"), broken, line(id="last"))
            with pytest.raises(DataError, match=rf"samples\.jsonl:2: .*{message}"):
                open_dataset(tmp_path / "set")
            dataset = open_skipping(tmp_path / "set")
            assert [sample.id for sample in dataset] == ["good", "last"]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            {"size": [4, 3], "counts": "<"},
            r"mask of 'a dog' is broken: it is 4 x 3, and the image is 3 x 4 \(height x width\)",
        ),
        ({"size": [3, 4], "counts": "1"}, r"mask of 'a dog' is broken: The run lengths .* cover 1 of 3 x 4"),
        ({"size": [3, 4], "counts": "ü"}, r"mask of 'a dog' is broken: .* the letters '0' to 'o'"),
    ],
)
def test_a_broken_mask_is_reported(mask: object, message: str, tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "set", line(phrases=[{"span": [0, 5], "mask": mask}])))
    with pytest.raises(DataError, match=message):
        dataset.sample(0)


def test_a_missing_image_is_reported(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "set", line(image="b.png")))
    assert dataset.annotation(0).text == "a dog"
    with pytest.raises(ImageError, match=r"b\.png' does not exist"):
        dataset.sample(0)


def test_one_image_may_be_that_of_many_lines(tmp_path: Path) -> None:
    write(tmp_path / "set", line(), line(id="b"), line(id="c", image="./a.png"), line(id="d", image_id="2"))
    assert [sample.image_id for sample in open_dataset(tmp_path / "set")] == ["1", "1", "1", "2"]


def test_a_file_that_changed_since_is_reported(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "set", line(), line(id="b")))
    write(tmp_path / "set", line(id="longer"), line(id="b"))
    with pytest.raises(DataError, match=r"The file has changed since it was opened: Invalid JSON.* Open the set again"):
        dataset.sample(1)


def test_a_folder_without_samples_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*samples\.jsonl\. Check the path\."):
        Folder(tmp_path)


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"already exists and is not an empty folder\. Choose another path\."):
        write_folder(Scenes(1), tmp_path, range(1))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    dataset = open_dataset(write(tmp_path / "in" / "set", line(), line(id="b", image="gone.png", image_id="2")))
    with pytest.raises(ImageError, match=r"samples\.jsonl:2: .*gone\.png' does not exist"):
        write_folder(dataset, tmp_path / "out", range(2))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_broken_is_left_out_and_reported_where_the_set_skips_it(tmp_path: Path) -> None:
    write(tmp_path / "set", line(), line(id="b", image="gone.png", image_id="2"))
    dataset = open_dataset(f"folder:path={tmp_path / 'set'},broken=skip")
    (problem,) = write_folder(dataset, tmp_path / "out", range(2))
    assert problem.place == f"{tmp_path}/set/samples.jsonl:2"
    assert [sample.id for sample in open_dataset(tmp_path / "out")] == ["a"]
