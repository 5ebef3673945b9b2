"""Published forms of data that are not the one that was asked for, recognised so that a message can name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Form(NamedTuple):
    """A published form of JSON.

    Attributes:
        description: What it is, and which kind of data set reads it.
        is_instances: Whether it is an instances file of COCO.
    """

    description: str
    is_instances: bool = False

    def __str__(self) -> str:
        return self.description


_PANOPTIC = Form("a panoptic file of COCO (segments_info), which kind png reads as panoptic=")
_INSTANCES = Form("an instances file of COCO, which kind instances reads as annotations=", is_instances=True)
_CAPTIONS = Form("a captions file of COCO, which has no masks")
_BOXES = Form("a file with boxes only: no annotation has a segmentation. Masks are needed")
_RESULTS = Form("a list of COCO results, which has no images; put it under annotations beside the images of its file")
_NARRATIVES = Form("narratives of Panoptic Narrative Grounding, which kind png reads as narratives=")
_GREFS = Form("refs of gRefCOCO, whose ann_id are lists, which kind grefcoco reads")
_REASONSEG = Form("an annotation of ReasonSeg, which kind reasonseg reads with all of its folder")
_LABELME = Form("a file of labelme, which kind labelme reads with all of its folder")
_MOST_LOOKED_AT = 1_000


def form_of(content: object) -> Form | None:
    """Recognise a published form by its keys; None for any other."""
    if isinstance(content, list):
        return _form_of_list(content)
    if not isinstance(content, Mapping):
        return None
    if "shapes" in content and "is_sentence" in content:
        return _REASONSEG
    if "shapes" in content and "imagePath" in content:
        return _LABELME
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        return None
    return _form_of_annotations(annotations)


def _form_of_annotations(annotations: list[object]) -> Form:
    found = [entry for entry in annotations[:_MOST_LOOKED_AT] if isinstance(entry, dict)]
    if any("segments_info" in entry for entry in found):
        return _PANOPTIC
    if any("caption" in entry and "segmentation" not in entry for entry in found):
        return _CAPTIONS
    if found and not any(entry.get("segmentation") for entry in annotations if isinstance(entry, dict)):
        return _BOXES if any("bbox" in entry for entry in found) else _INSTANCES
    return _INSTANCES


def _form_of_list(content: list[object]) -> Form | None:
    first = content[0] if content else None
    if not isinstance(first, dict):
        return None
    if "image_id" in first and isinstance(first.get("segments"), list):
        return _NARRATIVES
    if "ref_id" in first and isinstance(first.get("ann_id"), list):
        return _GREFS
    if "image_id" in first and "score" in first:
        return _RESULTS
    return None
