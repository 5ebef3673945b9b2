"""Panoptic Narrative Grounding, in its published files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data.open import open_dataset, open_skipping
from vlm_adapters.errors import DataError, ImageError

if TYPE_CHECKING:
    from conftest import PngSet


def test_the_utterances_in_their_order_are_the_text(png: PngSet) -> None:
    first, second = open_dataset(png.uri())
    assert first.text == "Here is a dog and the man on grass . Everything under the sky ."
    assert second.text == "A man"
    assert [first.text[slice(*phrase.span)] for phrase in first.phrases] == [
        "a dog",
        "the man",
        "grass",
        "Everything",
        "the sky",
    ]
    assert [phrase.text for phrase in first.phrases] == [first.text[slice(*phrase.span)] for phrase in first.phrases]


def test_samples_are_named_by_image_and_entry_and_phrases_by_segments(png: PngSet) -> None:
    first, second = open_dataset(png.uri())
    assert (first.id, first.image_id, second.id, second.image_id) == ("1/0", "1", "2/1", "2")
    assert first.phrase_ids == ("7", "300", "70000", "70000+7+300", "16000000")


def test_a_plural_counts_as_thing_and_a_singular_as_what_its_category_is(png: PngSet) -> None:
    first, _ = open_dataset(png.uri())
    assert first.phrase_tags == (
        ("thing", "singular"),
        ("thing", "singular"),
        ("stuff", "singular"),
        ("thing", "plural"),
        ("stuff", "singular"),
    )


def test_masks_are_unions_of_the_ids_in_the_colours(png: PngSet) -> None:
    first, _ = open_dataset(png.uri())
    ids = png.segments[1]
    assert len(np.unique(ids)) == 4
    expected = [ids == 7, ids == 300, ids == 70_000, (ids == 7) | (ids == 300) | (ids == 70_000), ids == 16_000_000]
    assert np.array_equal(first.masks, np.stack(expected))


def test_the_image_is_that_of_2017(png: PngSet) -> None:
    dataset = open_dataset(png.uri())
    assert dataset.image_file(1) == png.folder / "val2017" / "000000000002.jpg"
    assert np.array_equal(np.asarray(dataset[1].image), np.asarray(Image.open(dataset.image_file(1))))


def test_a_fingerprint_shows_changed_segments_and_that_of_a_part_only_those_of_the_part(png: PngSet) -> None:
    before = [open_dataset(png.uri(**keys)).fingerprint() for keys in ({}, {"limit": 1})]
    png.segments[2][3:9, ::3] = 70_000
    after = [open_dataset(png.write().uri(**keys)).fingerprint() for keys in ({}, {"limit": 1})]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_annotations_are_those_of_the_samples_without_an_image(png: PngSet) -> None:
    dataset = open_dataset(png.uri())
    sample = dataset[0]
    for file in (png.folder / "val2017").iterdir():
        file.unlink()
    annotation = dataset.annotation(0)
    assert (annotation.text, annotation.phrases, annotation.phrase_ids) == (
        sample.text,
        sample.phrases,
        sample.phrase_ids,
    )
    assert annotation.phrase_tags == sample.phrase_tags
    with pytest.raises(ImageError, match=r"000000000001\.jpg' does not exist"):
        dataset.sample(0)


def test_an_empty_narrative_is_an_error_or_left_out_as_chosen(png: PngSet) -> None:
    png.narratives.insert(0, {"image_id": "3", "caption": "Nothing.", "segments": [png.utterance("Nothing.")]})
    png.panoptic["annotations"].append({"image_id": 3, "file_name": "x.png", "segments_info": []})
    png.write()
    message = r"png_coco_val2017\.json\[0\]: The narrative of image 3 is empty: no phrase of it names a segment"
    with pytest.raises(DataError, match=message):
        open_dataset(png.uri())
    dataset = open_dataset(png.uri(broken="skip"))
    assert [dataset.annotation(index).id for index in range(len(dataset))] == ["1/1", "2/2"]
    assert len(dataset.problems) == 1


def test_a_phrase_that_names_an_unknown_segment_is_left_out_of_its_narrative(png: PngSet) -> None:
    png.narratives[0]["segments"][1] = png.utterance("a dog", 7, 8)
    dataset = open_skipping(png.write().uri())
    assert dataset[0].text == "Here is a dog and the man on grass . Everything under the sky ."
    assert [phrase.text for phrase in dataset[0].phrases] == ["the man", "grass", "Everything", "the sky"]
    (problem,) = dataset.problems
    assert problem.place.endswith("png_coco_val2017.json[0]")
    assert problem.message == "The phrase 'a dog' names segments [8] that image 1 does not have."


def test_blank_utterances_are_passed_over_unless_they_name_segments(png: PngSet) -> None:
    png.narratives[1]["segments"] = [png.utterance(" "), png.utterance(" A man ", 300), png.utterance("", 300)]
    dataset = open_skipping(png.write().uri())
    assert dataset[1].text == "A man"
    assert [phrase.span for phrase in dataset[1].phrases] == [(0, 5)]
    assert [problem.message for problem in dataset.problems] == ["An utterance that names segments [300] is blank."]


def test_a_segment_without_a_pixel_is_reported(png: PngSet) -> None:
    png.segments[2][:] = 70_000
    with pytest.raises(DataError, match=r"'A man' names segments \[300\] that have no pixel in .*000000000002\.png"):
        open_dataset(png.write().uri()).sample(1)


def test_segments_of_another_size_are_reported(png: PngSet) -> None:
    png.segments[2] = png.segments[2][:-1]
    with pytest.raises(DataError, match=r"000000000002\.png are 49 x 30, and their image is 50 x 30"):
        open_dataset(png.write().uri()).sample(1)


def test_missing_segments_are_reported(png: PngSet) -> None:
    (png.folder / "panoptic" / "000000000002.png").unlink()
    with pytest.raises(ImageError, match=r"000000000002\.png' does not exist"):
        open_dataset(png.uri()).sample(1)


def test_a_broken_narrative_is_reported_by_its_entry(subtests: pytest.Subtests, png: PngSet) -> None:
    cases: list[tuple[object, str]] = [
        (5, "It is not a narrative with image_id and segments"),
        ({"image_id": "x", "segments": []}, "The id 'x' is not an integer"),
        ({"image_id": "9", "segments": []}, r"Its image 9 is not in .*panoptic_val2017\.json"),
        ({"image_id": "1", "segments": [{"utterance": "a"}]}, "no utterance, or no list segment_ids"),
        ({"image_id": "1", "segments": [{"segment_ids": []}]}, "no utterance, or no list segment_ids"),
        ({"image_id": "1", "segments": [{"utterance": "a", "segment_ids": "7"}]}, "no list segment_ids"),
    ]
    for entry, message in cases:
        with subtests.test(entry=entry):
            png.narratives[2:] = [entry]
            with pytest.raises(DataError, match=rf"png_coco_val2017\.json\[2\]: .*{message}"):
                open_dataset(png.write().uri())


def test_a_segment_of_an_unknown_category_is_reported(png: PngSet) -> None:
    png.panoptic["annotations"][1]["segments_info"][0]["category_id"] = 5
    with pytest.raises(DataError, match="has no category 5 for a segment of image 2"):
        open_dataset(png.write().uri())


def test_files_of_another_kind_are_reported(png: PngSet) -> None:
    with pytest.raises(DataError, match=r"panoptic_val2017\.json does not hold a list of narratives"):
        open_dataset(png.uri(narratives=png.folder / "panoptic_val2017.json"))
    with pytest.raises(DataError, match=r"png_coco_val2017\.json has no list 'annotations'"):
        open_dataset(png.uri(panoptic=png.folder / "png_coco_val2017.json"))
