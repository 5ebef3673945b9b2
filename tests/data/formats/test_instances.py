"""Hand-written captions for an instances file of COCO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.errors import DataError, ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import InstancesSet

    Mask = Callable[[object, tuple[int, int]], np.ndarray]

GOOD = {"image_id": 1, "text": "a dog", "phrases": [{"text": "dog", "annotations": [11]}]}


def test_phrases_are_named_by_words_or_by_span(instances: InstancesSet) -> None:
    first, second = open_dataset(instances.uri())
    assert [(phrase.text, phrase.span) for phrase in first.phrases] == [("a dog", (9, 14)), ("by", (6, 8))]
    assert (first.id, first.image_id, first.phrase_ids) == ("1/1", "1", ("12", "11+12"))
    assert (second.id, second.image_id, second.phrase_ids) == ("2/2", "2", ("21",))


def test_tags_are_those_of_the_line(instances: InstancesSet) -> None:
    first, second = open_dataset(instances.uri())
    assert (first.phrase_tags, second.phrase_tags) == ((), (("human",),))


def test_a_mask_is_the_union_of_its_annotations(instances: InstancesSet, by_pycocotools: Mask) -> None:
    first, _ = open_dataset(instances.uri())
    rectangle = by_pycocotools([[10, 5, 30, 5, 30, 20, 10, 20]], (40, 60))
    triangle = by_pycocotools([[3.2, 4.1, 50.7, 8.9, 20.3, 38.4]], (40, 60))
    assert not np.array_equal(rectangle | triangle, triangle)
    assert np.array_equal(first.masks, np.stack([triangle, rectangle | triangle]))


def test_a_missing_image_is_reported(instances: InstancesSet) -> None:
    (instances.folder / "images" / "000000000002.jpg").unlink()
    dataset = open_dataset(instances.uri())
    assert dataset.annotation(1).text == "two men"
    with pytest.raises(ImageError, match=r"000000000002\.jpg' does not exist"):
        dataset.sample(1)


def test_a_broken_line_is_reported_by_its_number(subtests: pytest.Subtests, instances: InstancesSet) -> None:
    cases: list[tuple[object, str]] = [
        ("{", "Invalid JSON"),
        ({**GOOD, "image": 1}, "image: Extra inputs are not permitted"),
        ({**GOOD, "image_id": 9}, r"image_id: the image 9 is not in .*instances\.json"),
        ({**GOOD, "phrases": []}, "phrases: .* at least 1 item"),
        ({**GOOD, "phrases": [{"text": "cat", "annotations": [11]}]}, "The phrase 'cat' is not in the text 'a dog'"),
        ({**GOOD, "phrases": [{"span": [2, 9], "annotations": [11]}]}, r"The span \(2, 9\) does not lie in the text"),
        ({**GOOD, "phrases": [{"annotations": [11]}]}, r"phrases\.0: give text or span"),
        (
            {**GOOD, "phrases": [{"text": "dog", "span": [0, 1], "annotations": [11]}]},
            r"phrases\.0: give text or span",
        ),
        ({**GOOD, "phrases": [{"text": "dog", "annotations": [21]}]}, "annotations: 21 belongs to image 2 in .* is 1"),
        ({**GOOD, "phrases": [{"text": "dog", "annotations": [99]}]}, "annotations: the annotation 99 is not in"),
        (
            {
                **GOOD,
                "phrases": [{"text": "a", "annotations": [11], "tags": ["x"]}, {"text": "dog", "annotations": [11]}],
            },
            "phrase_tags has 1 entries for 2 phrases",
        ),
    ]
    for caption, message in cases:
        with subtests.test(caption=caption):
            instances.write(GOOD, "", caption, GOOD)
            with pytest.raises(DataError, match=rf"captions\.jsonl:3: .*{message}"):
                open_dataset(instances.uri())
            dataset = open_skipping(instances.uri())
            assert [dataset.place(index).rpartition(":")[2] for index in range(len(dataset))] == ["1", "4"]


def test_a_missing_file_is_reported(instances: InstancesSet) -> None:
    (instances.folder / "captions.jsonl").unlink()
    with pytest.raises(DataError, match=r"There is no file .*captions\.jsonl\. Check the path\."):
        open_dataset(instances.uri())
