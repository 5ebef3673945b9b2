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

from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.result import GroundedPhrase, Grounding
from vlm_adapters.output.exports import coco_results, indexed_image, to_detections
from vlm_adapters.output.render import colour_of
from vlm_adapters.prompt import Phrase

SIZE = (40, 60)
numpy_backend = pytest.mark.filterwarnings("ignore:OpenCV:UserWarning")  # supervision works without it


def grounded(words: str, box: tuple[int, int, int, int] | None, score: float = 0.5) -> GroundedPhrase:
    mask = np.zeros(SIZE, dtype=bool)
    if box:
        mask[box[1] : box[3], box[0] : box[2]] = True
    return GroundedPhrase(Phrase(words, 0, len(words)), mask, box, score, np.zeros(SIZE, np.float32))


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
    assert [a["bbox"] for a in annotations] == [[12, 6, 6, 4], [10, 5, 40, 25]]
    assert [a["score"] for a in annotations] == [0.75, 0.9]
    for annotation, phrase in zip(annotations, GROUNDING.phrases[:2], strict=True):
        assert (coco_mask.decode(annotation["segmentation"]) == phrase.mask).all()
        assert list(coco_mask.toBbox(annotation["segmentation"])) == annotation["bbox"]


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


def test_without_supervision_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(OptionError, match=r'pip install "vlm-adapters\[supervision\]"'):
        to_detections(GROUNDING)
