"""gRefCOCO in its published files: sentences about one object, several, or none."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from vlm_adapters.cli import app
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import GRefCocoSet


def by_coco(grefcoco: GRefCocoSet, image: int, targets: list[int]) -> np.ndarray:
    """The union of the masks of annotations, as pycocotools reads them; empty without any."""
    coco = COCO(str(grefcoco.folder / "instances.json"))
    size = (coco.imgs[image]["height"], coco.imgs[image]["width"])
    return np.any([np.zeros(size), *(coco.annToMask(coco.anns[number]) for number in targets)], axis=0)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_a_mask_is_the_union_of_all_targets_and_empty_without_any(grefcoco: GRefCocoSet) -> None:
    samples = list(open_dataset(grefcoco.uri()))
    assert [(sample.id, sample.image_id, sample.text) for sample in samples] == [
        ("1/10", "0", "the first thing"),
        ("1/11", "0", "that one"),
        ("2/20", "0", "both of them"),
        ("3/30", "1", "a pink elephant"),
        ("4/40", "2", "these two"),
    ]
    for sample, (image, targets) in zip(
        samples, [(0, [0]), (0, [0]), (0, [0, 1]), (1, []), (2, [20, 21])], strict=True
    ):
        assert np.array_equal(sample.masks, by_coco(grefcoco, image, targets)[None])
        assert sample.masks.any() == bool(targets)
        file = grefcoco.folder / "train2014" / f"COCO_train2014_{image:012}.jpg"
        assert np.array_equal(np.asarray(sample.image), np.asarray(Image.open(file)))


def test_tags_say_whether_there_is_a_target_and_whether_there_are_several(grefcoco: GRefCocoSet) -> None:
    tags = [sample.phrase_tags for sample in open_dataset(grefcoco.uri())]
    assert tags == [
        (("target", "singular"),),
        (("target", "singular"),),
        (("target", "plural"),),
        (("no target",),),
        (("target", "plural"),),
    ]


def test_the_sentences_about_an_image_can_be_packed(grefcoco: GRefCocoSet) -> None:
    first, second, third = open_dataset(grefcoco.uri(form="packed", sentences="first"))
    assert (first.text, second.text, third.text) == (
        "the first thing . both of them",
        "a pink elephant",
        "these two",
    )
    assert first.phrase_tags == (("target", "singular"), ("target", "plural"))
    assert first.masks.shape[0] == 2


def test_a_number_alone_is_the_only_target(grefcoco: GRefCocoSet) -> None:
    grefcoco.refs[0]["ann_id"], grefcoco.refs[2]["ann_id"] = 0, -1
    samples = open_dataset(grefcoco.write().uri())
    assert [bool(samples[index].masks.any()) for index in (0, 3)] == [True, False]


def test_its_name_in_one_line_opens_it_again(grefcoco: GRefCocoSet) -> None:
    dataset = open_dataset(grefcoco.uri())
    assert dataset.source.startswith("grefcoco:")
    assert ",split_by=unc," in dataset.source
    assert open_dataset(dataset.source).source == dataset.source
    assert dataset.place(3) == f"{grefcoco.folder}/grefs(unc).json[2]"


def test_sentences_of_two_refs_may_share_an_id(grefcoco: GRefCocoSet) -> None:
    grefcoco.refs[1]["sentences"][0]["sent_id"] = 10
    ids = [sample.id for sample in open_dataset(grefcoco.write().uri())]
    assert ids[:3] == ["1/10", "1/11", "2/10"]


def test_a_broken_ref_is_reported_by_its_entry(subtests: pytest.Subtests, grefcoco: GRefCocoSet) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"ann_id": []}, r"Its ann_id is \[\]\. Give the ids of all its targets, or \[-1\]"),
        ({"ann_id": [0, -1]}, r"Its ann_id is \[0, -1\]\. Give the ids"),
        ({"ann_id": [0, 77]}, r"Its annotation 77 is not in .*instances\.json"),
        ({"ann_id": [0, 10]}, r"Its image 0 is not that of annotation 10"),
        ({"ann_id": [[0]]}, r"The id \[0\] is not an integer"),
        ({"ann_id": None}, "The id None is not an integer"),
        ({"ann_id": [-1]}, r"Its no_target is False, and its ann_id is \[-1\]"),
        ({"image_id": 9, "ann_id": [-1], "no_target": True}, "There is no 9 in images"),
        ({"ref_id": 2}, "Its ref_id 2 is already that of entry"),
        ({"sentences": []}, "It has no sentences"),
        ({"sentences": [{"sent_id": 1, "raw": " "}]}, "Sentence 1 is blank"),
    ]
    ref = grefcoco.refs[0]
    for change, message in cases:
        with subtests.test(change=change):
            grefcoco.refs[0] = {**ref, **change}
            with pytest.raises(DataError, match=rf"grefs\(unc\)\.json\[[01]\]: {message}"):
                open_dataset(grefcoco.write().uri())
            assert len(open_skipping(grefcoco.uri()).problems) == 1


def test_a_broken_mask_is_an_error_of_its_annotation(subtests: pytest.Subtests, grefcoco: GRefCocoSet) -> None:
    cases: list[tuple[object, str]] = [
        ([], r"Annotation 0 .* has no mask"),
        ([[1, 2, 3]], "is not a list of three or more points"),
        ({"size": [5, 5], "counts": "o"}, r"its size is \[5, 5\], and the image is"),
    ]
    for segmentation, message in cases:
        with subtests.test(segmentation=segmentation):
            grefcoco.content["annotations"][0]["segmentation"] = segmentation
            with pytest.raises(DataError, match=message):
                open_dataset(grefcoco.write().uri()).sample(0)


def test_an_image_outside_the_folder_is_refused(grefcoco: GRefCocoSet) -> None:
    grefcoco.content["images"][1]["file_name"] = "../secret.jpg"
    with pytest.raises(DataError, match=r"grefs\(unc\)\.json\[2\]: The file_name of image 1 .* outside the folder"):
        open_dataset(grefcoco.write().uri())


def test_no_pickle_is_read(grefcoco: GRefCocoSet) -> None:
    (grefcoco.folder / "grefs(unc).json").rename(grefcoco.folder / "grefs(unc).p")
    with pytest.raises(DataError, match=r"needs one file grefs\(\*\)\.json, found: none\."):
        open_dataset(grefcoco.uri())
    (grefcoco.folder / "grefs(unc).json").write_bytes(pickle.dumps(grefcoco.refs))
    with pytest.raises(DataError, match=r"grefs\(unc\)\.json cannot be read as JSON"):
        open_dataset(grefcoco.uri())


def test_a_folder_of_refcoco_is_named(grefcoco: GRefCocoSet) -> None:
    (grefcoco.folder / "grefs(unc).json").rename(grefcoco.folder / "refs(unc).p")
    with pytest.raises(DataError, match=r"found: none, but refs\(\*\)\.p, which kind refcoco reads"):
        open_dataset(grefcoco.uri())


def test_it_is_checked_and_converted_with_its_empty_masks(grefcoco: GRefCocoSet, tmp_path: Path) -> None:
    checked = CliRunner().invoke(app, ["data", "check", grefcoco.uri(), "--json"])
    report = json.loads(checked.stdout)
    assert (checked.exit_code, report["samples"], report["images"], report["empty_masks"]) == (0, 5, 3, 1)
    assert report["tags"] == {"no target": 1, "plural": 2, "singular": 2, "target": 4}
    plain = tmp_path / "plain"
    assert CliRunner().invoke(app, ["data", "convert", grefcoco.uri(), "--out", str(plain)]).exit_code == 0
    for sample, again in zip(open_dataset(grefcoco.uri()), open_dataset(plain), strict=True):
        assert (again.id, again.phrase_tags) == (sample.id, sample.phrase_tags)
        assert np.array_equal(again.masks, sample.masks)
