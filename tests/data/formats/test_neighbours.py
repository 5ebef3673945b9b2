"""Files of a neighbouring published form are named, not called damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.data import open_dataset
from vlm_adapters.errors import DataError

if TYPE_CHECKING:
    from conftest import InstancesSet, PngSet, RefCocoSet

IMAGES = [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}]
FORMS: dict[str, tuple[object, str]] = {
    "panoptic": (
        {"images": IMAGES, "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}]},
        "a panoptic file of COCO .*, which kind png reads as panoptic=",
    ),
    "captions": (
        {"images": IMAGES, "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]},
        "a captions file of COCO, which has no masks",
    ),
    "boxes": (
        {"images": IMAGES, "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 5, 5], "segmentation": []}]},
        "a file with boxes only: no annotation has a segmentation",
    ),
    "results": ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}], "a list of COCO results"),
    "narratives": ([{"image_id": 1, "caption": "", "segments": []}], "narratives of .*, which kind png reads as narr"),
    "grefs": ([{"ref_id": 1, "ann_id": [-1], "sentences": []}], "refs of gRefCOCO, .*, which kind grefcoco reads"),
    "reasonseg": (
        {"text": ["a"], "is_sentence": True, "shapes": []},
        "an annotation of ReasonSeg, which kind reasonseg",
    ),
    "labelme": (
        {"shapes": [], "imagePath": "a.png"},
        "a file of labelme, which kind labelme reads with all of its folder",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_another_form_is_named_as_annotations(form: str, instances: InstancesSet) -> None:
    content, message = FORMS[form]
    (instances.folder / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"instances\.json .*it looks like {message}"):
        open_dataset(instances.uri())


def test_an_instances_file_is_named_as_panoptic(png: PngSet, instances: InstancesSet) -> None:
    content = json.loads((instances.folder / "instances.json").read_text(encoding="utf-8"))
    (png.folder / "other.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"is not a panoptic file: it looks like an instances file of COCO, which"):
        open_dataset(png.uri(panoptic=png.folder / "other.json"))


def test_swapped_files_of_narratives_are_named(png: PngSet) -> None:
    narratives, panoptic = png.folder / "png_coco_val2017.json", png.folder / "panoptic_val2017.json"
    with pytest.raises(DataError, match=r"has no list 'annotations': it looks like narratives of Panoptic Narrative"):
        open_dataset(png.uri(panoptic=narratives))
    with pytest.raises(DataError, match=r"does not hold a list of narratives: it looks like a panoptic file of COCO"):
        open_dataset(png.uri(narratives=panoptic))


@pytest.mark.parametrize("annotation", [[11, 12], [-1], [], -1, None])
def test_refs_of_grefcoco_are_named(annotation: object, refcoco: RefCocoSet) -> None:
    refcoco.refs[0][b"ann_id"] = annotation
    if annotation is None:
        refcoco.refs[0][b"ann_id"] = -1
    with pytest.raises(DataError, match=r"Its ann_id is .*, as in gRefCOCO, whose refs name several objects or none"):
        open_dataset(refcoco.write().uri())


def test_a_folder_of_grefcoco_is_named(refcoco: RefCocoSet) -> None:
    (refcoco.annotations / "refs(unc).p").rename(refcoco.annotations / "grefs(unc).json")
    with pytest.raises(DataError, match=r"none, but grefs\(\*\)\.json, which kind grefcoco reads"):
        open_dataset(refcoco.uri())


def test_an_annotation_with_a_box_alone_is_named(instances: InstancesSet) -> None:
    file: Path = instances.folder / "instances.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][2]["segmentation"] = []
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"Annotation 21 of .* has no mask, as in a file with boxes only"):
        open_dataset(instances.uri()).sample(1)


@pytest.mark.parametrize("channels", ["two of three", "two", "one"])
def test_segments_of_two_channels_are_named(channels: str, png: PngSet) -> None:
    png.narratives = png.narratives[1:]
    png.write()
    shape = (50, 30)
    categories, instances = np.full(shape, 18, np.uint8), np.zeros(shape, np.uint8)
    image = {
        "two of three": Image.fromarray(np.stack([categories, instances, 0 * instances], -1)),
        "two": Image.merge("LA", [Image.fromarray(categories), Image.fromarray(instances + 255)]),
        "one": Image.fromarray(categories),
    }[channels]
    image.save(png.folder / "panoptic" / "000000000002.png")
    with pytest.raises(DataError, match=r"that have no pixel in .*PNG of two channels .*2channels2panoptic"):
        open_dataset(png.uri()).sample(0)
