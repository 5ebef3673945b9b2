"""RefCOCO in its published files: sentences, their objects, and how they become samples."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.formats.refcoco import RefCoco
from vlm_adapters.data.formats.referring import SentencePolicy
from vlm_adapters.data.image_order import indices_by_image
from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.errors import DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import RefCocoSet

    Mask = Callable[[object, tuple[int, int]], np.ndarray]


@pytest.mark.parametrize("protocol", [0, 2])
def test_isolated_makes_a_sample_of_every_sentence(refcoco: RefCocoSet, protocol: int) -> None:
    samples = list(open_dataset(refcoco.write(protocol=protocol).uri()))
    assert [(sample.id, sample.image_id, sample.text) for sample in samples] == [
        ("100/1000", "1", "left dog"),
        ("100/1001", "1", "the dog on the left"),
        ("100/1002", "1", "brown"),
        ("101/1010", "2", "two men"),
        ("102/1020", "1", "triangle"),
        ("102/1021", "1", "café"),
    ]
    for sample in samples:
        assert [phrase.span for phrase in sample.phrases] == [(0, len(sample.text))]
        assert sample.phrase_ids == (sample.id,)
        assert sample.phrase_tags == ()


def test_packed_makes_a_sample_of_every_image(refcoco: RefCocoSet) -> None:
    first, second = open_dataset(refcoco.uri(form="packed"))
    assert (first.id, first.image_id, second.id) == ("1", "1", "2")
    assert first.text == "left dog . the dog on the left . brown . triangle . café"
    assert [first.text[slice(*phrase.span)] for phrase in first.phrases] == first.text.split(" . ")
    assert [phrase.text for phrase in first.phrases] == first.text.split(" . ")
    assert first.phrase_ids == ("100/1000", "100/1001", "100/1002", "102/1020", "102/1021")
    assert second.text == "two men"


def test_masks_and_images_are_those_of_the_annotation(refcoco: RefCocoSet, by_pycocotools: Mask) -> None:
    sizes = {1: (40, 60), 2: (50, 30)}
    expected = {
        entry["id"]: by_pycocotools(entry["segmentation"], sizes[entry["image_id"]])
        for entry in refcoco.content["annotations"]
    }
    for form in ("isolated", "packed"):
        for sample in open_dataset(refcoco.uri(form=form)):
            annotations = [{"100": 11, "101": 21, "102": 12}[name.split("/")[0]] for name in sample.phrase_ids]
            assert np.array_equal(sample.masks, np.stack([expected[number] for number in annotations]))
            file = refcoco.images / f"COCO_train2014_{int(sample.image_id):012}.jpg"
            assert np.array_equal(np.asarray(sample.image), np.asarray(Image.open(file)))


def test_run_lengths_are_found_among_the_annotations(refcoco: RefCocoSet) -> None:
    (sample,) = open_dataset(refcoco.uri(split="testA"))
    expected = np.zeros((50, 30), bool)
    expected[2:5, 0] = True
    expected[5:7, 1] = True
    assert np.array_equal(sample.masks, expected[None])


@pytest.mark.parametrize(
    ("form", "texts"),
    [("isolated", ["left dog", "two men", "triangle"]), ("packed", ["left dog . triangle", "two men"])],
)
def test_the_first_sentence_of_every_ref(form: str, texts: list[str], refcoco: RefCocoSet) -> None:
    assert [sample.text for sample in open_dataset(refcoco.uri(form=form, sentences="first"))] == texts


def test_a_sentence_at_random_is_another_in_another_epoch_and_the_same_in_the_same(refcoco: RefCocoSet) -> None:
    refcoco.refs[1] = refcoco.ref(101, 21, "val", b"two men", b"men", b"both")
    dataset = open_dataset(refcoco.write().uri(sentences="random", seed=5))
    assert [sample.id.split("/")[0] for sample in dataset] == ["100", "101", "102"]
    drawn = [[sample.text for sample in dataset.at_epoch(epoch)] for epoch in range(300)]
    assert drawn[0] == [sample.text for sample in dataset]
    assert drawn[7] == [sample.text for sample in dataset.at_epoch(9).at_epoch(7)]
    for place, sentences in enumerate([3, 3, 2]):
        counts = Counter(texts[place] for texts in drawn)
        assert len(counts) == sentences
        assert min(counts.values()) > 300 / sentences / 1.5
    assert len(set(map(tuple, drawn))) == 18  # one ref's draw says nothing of another's


def test_a_draw_depends_on_the_ref_and_not_on_its_company(refcoco: RefCocoSet) -> None:
    before = [[sample.text for sample in open_dataset(refcoco.uri(sentences="random", seed=seed))] for seed in range(9)]
    refcoco.refs.insert(0, refcoco.ref(99, 12, "val", b"new", b"newer"))
    refcoco.write()
    after = [[sample.text for sample in open_dataset(refcoco.uri(sentences="random", seed=seed))] for seed in range(9)]
    assert [texts[1:] for texts in after] == before


def test_without_a_draw_every_epoch_is_the_same_set(refcoco: RefCocoSet) -> None:
    dataset = open_dataset(refcoco.uri())
    assert dataset.at_epoch(3) is dataset


def test_annotations_are_those_of_the_samples_without_an_image(refcoco: RefCocoSet) -> None:
    dataset = open_dataset(refcoco.uri(form="packed"))
    samples = list(dataset)
    for file in refcoco.images.iterdir():
        file.unlink()
    for index, sample in enumerate(samples):
        annotation = dataset.annotation(index)
        assert (annotation.id, annotation.text, annotation.phrases) == (sample.id, sample.text, sample.phrases)
        assert annotation.phrase_ids == sample.phrase_ids
    with pytest.raises(ImageError, match=r"COCO_train2014_000000000001\.jpg' does not exist"):
        dataset.sample(0)


def test_a_blank_sentence_is_left_out_and_reported(refcoco: RefCocoSet) -> None:
    refcoco.refs[0] = refcoco.ref(100, 11, "val", b"  ", b"dog")
    refcoco.refs[1] = refcoco.ref(101, 21, "val", b"")
    refcoco.write()
    with pytest.raises(
        DataError, match=r"refs\(unc\)\.p\[0\]: Sentence 1000 is blank: '  '\. Remove it\. Broken entries: 2\. "
    ):
        open_dataset(refcoco.uri())
    dataset = open_dataset(refcoco.uri(sentences="first", broken="skip"))
    assert [sample.text for sample in dataset] == ["dog", "triangle"]
    assert [problem.place.rpartition("/")[2] for problem in dataset.problems] == ["refs(unc).p[0]", "refs(unc).p[1]"]


def test_a_broken_ref_is_reported_by_its_entry(subtests: pytest.Subtests, refcoco: RefCocoSet) -> None:
    cases: list[tuple[dict[bytes, object], str]] = [
        ({b"ann_id": 77}, r"Its annotation 77 is not in .*instances\.json"),
        ({b"image_id": 2}, r"Its image 2 is not that of annotation 11 .* \(1\)"),
        ({b"ann_id": b"x"}, "The id 'x' is not an integer"),
        ({b"sentences": []}, "It has no sentences"),
        ({b"sentences": [{b"sent_id": 1}]}, "A sentence of it has no sent_id, or its raw is not a string"),
        ({b"sentences": [{b"raw": b"dog"}]}, "A sentence of it has no sent_id, or its raw is not a string"),
    ]
    ref = refcoco.refs[0]
    for change, message in cases:
        with subtests.test(change=change):
            refcoco.refs[0] = {**ref, **change}
            dataset = open_skipping(refcoco.write().uri())
            assert len(dataset) == 3
            (problem,) = dataset.problems
            assert problem.place == f"{refcoco.annotations}/refs(unc).p[0]"
            with pytest.raises(DataError, match=rf"\[0\]: {message}"):
                open_dataset(refcoco.uri())


def test_an_entry_that_is_not_a_ref_is_reported(refcoco: RefCocoSet) -> None:
    refcoco.refs.append(5)
    (problem,) = open_skipping(refcoco.write().uri()).problems
    assert problem.place.endswith("refs(unc).p[5]")
    assert problem.message.startswith("It is not a ref with ref_id, ann_id, image_id and sentences.")


def test_a_sample_knows_its_entry_in_the_file(refcoco: RefCocoSet) -> None:
    file = f"{refcoco.annotations}/refs(unc).p"
    assert open_dataset(refcoco.uri()).place(4) == f"{file}[2]"
    assert open_dataset(refcoco.uri(form="packed")).place(0) == f"{file}[0, 2]"


def test_the_only_file_of_refs_is_taken_and_of_several_one_is_named(refcoco: RefCocoSet) -> None:
    assert ",split_by=unc," in open_dataset(refcoco.uri()).source
    refcoco.refs = [refcoco.ref(7, 11, "val", b"by google")]
    refcoco.write(split_by="google")
    with pytest.raises(DataError, match=r"needs one file refs\(\*\)\.p, found: refs\(google\)\.p, refs\(unc\)\.p\. Ch"):
        open_dataset(refcoco.uri())
    assert [sample.text for sample in open_dataset(refcoco.uri(split_by="google"))] == ["by google"]
    with pytest.raises(DataError, match=r"needs refs\(umd\)\.p, found: refs\(google\)\.p, refs\(unc\)\.p"):
        open_dataset(refcoco.uri(split_by="umd"))


def test_an_unknown_split_is_reported(refcoco: RefCocoSet) -> None:
    with pytest.raises(DataError, match=r"refs\(unc\)\.p has no split 'vall'\. Its splits are testA, train, val\."):
        open_dataset(refcoco.uri(split="vall"))


def test_a_pickle_of_something_else_is_reported(refcoco: RefCocoSet) -> None:
    refcoco.refs = {}  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"refs\(unc\)\.p holds a dict, not a list of refs"):
        open_dataset(refcoco.write().uri())


def test_a_hostile_pickle_is_refused(refcoco: RefCocoSet) -> None:
    (refcoco.annotations / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        DataError, match=r"refs\(unc\)\.p wants to load os\.system, but only plain lists, dicts, .* from a source"
    ):
        open_dataset(refcoco.uri(broken="skip"))


def test_a_missing_folder_is_reported(refcoco: RefCocoSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*nowhere\. Check the path\."):
        RefCoco(refcoco.annotations, tmp_path / "nowhere", split="val")


def test_a_set_is_opened_in_python_as_well(refcoco: RefCocoSet) -> None:
    policy = SentencePolicy(form="packed", sentences="random", seed=2, epoch=1)
    dataset = RefCoco(refcoco.annotations, refcoco.images, split="val", policy=policy)
    again = open_dataset(dataset.source)
    assert again.source == dataset.source
    assert [sample.text for sample in again] == [sample.text for sample in dataset]


def test_a_broken_mask_of_another_split_costs_nothing(refcoco: RefCocoSet) -> None:
    refcoco.content = json.loads(json.dumps(refcoco.content))
    refcoco.content["annotations"][3]["segmentation"] = [[1, 2]]
    refcoco.write()
    assert len(list(open_dataset(refcoco.uri()))) == 6
    with pytest.raises(DataError, match=r"Annotation 22 of .*instances\.json has a broken mask"):
        open_dataset(refcoco.uri(split="testA")).sample(0)


def test_sentences_of_one_image_are_computed_together_whatever_the_order_of_the_file(refcoco: RefCocoSet) -> None:
    dataset = open_dataset(refcoco.uri())
    assert [dataset.annotation(index).image_id for index in range(6)] == ["1", "1", "1", "2", "1", "1"]
    assert indices_by_image(dataset) == [0, 1, 2, 4, 5, 3]
