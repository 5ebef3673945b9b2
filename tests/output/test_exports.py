"""Groundings in the forms of other tools, read by those tools."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.result import GroundedPhrase, Grounding, PackedMask, PhraseMap, grounded_phrase
from vlm_adapters.output.exports import coco_results, indexed_image, to_detections
from vlm_adapters.output.render import colour_of
from vlm_adapters.prompt import Phrase

SIZE = (40, 60)
numpy_backend = pytest.mark.filterwarnings("ignore:OpenCV:UserWarning")  # supervision works without it


def grounded(words: str, box: tuple[int, int, int, int] | None, score: float = 0.5) -> GroundedPhrase:
    mask = np.zeros(SIZE, dtype=bool)
    if box:
        mask[box[1] : box[3], box[0] : box[2]] = True
    return GroundedPhrase(Phrase(words, 0, len(words)), PackedMask.of(mask), score, PhraseMap.of_pixels(mask))


GROUNDING = Grounding(
    Image.new("RGB", (60, 40)),
    "a dog, a nose and a bird",
    (grounded("a nose", (12, 6, 18, 10), 0.75), grounded("a dog", (10, 5, 50, 30), 0.9), grounded("a bird", None, 0.0)),
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools
def test_coco_reads_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads(json.dumps(coco_results(GROUNDING, image_id=7)))
    truth = COCO()
    truth.dataset = {"images": [{"id": 7, "height": 40, "width": 60}], "categories": [{"id": 1}], "annotations": []}
    truth.createIndex()
    read = truth.loadRes(results)
    capsys.readouterr()
    annotations: list[Any] = read.loadAnns(read.getAnnIds())
    assert [list(a["bbox"]) for a in annotations] == [[12, 6, 6, 4], [10, 5, 40, 25]]
    assert [a["area"] for a in annotations] == [24, 1000]
    assert [a["score"] for a in annotations] == [0.75, 0.9]
    for annotation, phrase in zip(annotations, GROUNDING.phrases[:2], strict=True):
        assert (coco_mask.decode(annotation["segmentation"]) == phrase.mask).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools
def test_coco_sorts_masks_by_their_own_area_and_not_by_that_of_their_box(capsys: pytest.CaptureFixture[str]) -> None:
    square, thin = np.zeros((300, 300), np.bool_), np.zeros((300, 300), np.bool_)
    square[10:130, 10:130] = True
    thin[150, 20:270], thin[150:280, 20] = True, True  # a small mask in a large box
    phrases = [
        grounded_phrase(Phrase(words, 0, 5), (score * mask).astype(np.float32), PhraseMap.of_pixels(mask), 0.1)
        for words, mask, score in (("a box", square, 0.5), ("a rod", thin, 0.9))
    ]
    truth = COCO()
    annotation = {"id": 1, "image_id": 7, "category_id": 1, "area": 14400, "bbox": [10, 10, 120, 120], "iscrowd": 0}
    annotation["segmentation"] = coco_mask.encode(np.asfortranarray(square, np.uint8))
    truth.dataset = {
        "images": [{"id": 7, "height": 300, "width": 300}],
        "categories": [{"id": 1}],
        "annotations": [annotation],
    }
    truth.createIndex()
    results = coco_results(Grounding(Image.new("RGB", (300, 300)), "a box a rod", tuple(phrases)), image_id=7)
    evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    average_precision, of_large = evaluation.stats[0], evaluation.stats[5]
    assert average_precision == pytest.approx(0.5)  # the rod is found before the box, and is not there
    assert of_large == pytest.approx(1)  # and it is not a large object


def test_of_overlapping_masks_the_smaller_is_on_top() -> None:
    image = indexed_image(GROUNDING)
    indices = np.asarray(image)
    assert image.mode == "P"
    assert (indices[GROUNDING.phrases[0].mask] == 1).all()
    assert (indices[GROUNDING.phrases[1].mask & ~GROUNDING.phrases[0].mask] == 2).all()
    assert (indices[~GROUNDING.phrases[1].mask] == 0).all()
    assert image.convert("RGB").getpixel((13, 7)) == colour_of(0)
    assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


def test_more_phrases_than_indices_are_refused() -> None:
    many = replace(GROUNDING, phrases=(GROUNDING.phrases[0],) * 256)
    with pytest.raises(OptionError, match=r"at most 255 phrases, and there are 256.*one mask per phrase"):
        indexed_image(many)


@numpy_backend
def test_supervision_takes_the_detections() -> None:
    detections = to_detections(GROUNDING)
    assert len(detections) == 2
    assert detections.class_id is not None
    assert detections.mask is not None
    assert detections.class_id.tolist() == [0, 1]
    assert detections.area.tolist() == [24.0, 1000.0]
    assert detections.data["class_name"].tolist() == ["a nose", "a dog"]
    larger: Any = detections[detections.confidence > 0.8]
    assert larger.xyxy.tolist() == [[10, 5, 50, 30]]


@numpy_backend
def test_nothing_found_gives_no_detection() -> None:
    assert len(to_detections(replace(GROUNDING, phrases=GROUNDING.phrases[2:]))) == 0


@numpy_backend
def test_supervision_takes_the_truth_of_a_sample_without_confidence() -> None:
    masks = np.zeros((2, *SIZE), bool)
    masks[1, 5:30, 10:50] = True
    sample = Sample(
        id="1",
        image_id="1",
        text="a cat, a dog",
        phrases=(Phrase("a cat", 0, 5), Phrase("a dog", 7, 12)),
        image=Image.new("RGB", (60, 40)),
        masks=masks,
    )
    detections = to_detections(sample)
    assert detections.xyxy.tolist() == [[10, 5, 50, 30]]
    assert detections.confidence is None
    assert list(detections.data["class_name"]) == ["a dog"]
    assert np.array_equal(np.asarray(detections.mask), masks[1:])


def test_without_supervision_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(OptionError, match=r'pip install "vlm-adapters\[supervision\]"'):
        to_detections(GROUNDING)
