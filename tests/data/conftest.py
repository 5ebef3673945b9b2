"""Small data sets in the exact published formats, written by hand."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

# (height, width) of COCO's images 1, 2 and 3
SIZES = {1: (40, 60), 2: (50, 30), 3: (32, 32)}


def _python2_pickle(value: object, protocol: int) -> bytes:
    return (b"\x80\x02" if protocol == 2 else b"") + _pickled(value, protocol) + b"."


def _pickled(value: object, protocol: int) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_pickled(key, protocol) + _pickled(item, protocol) + b"s" for key, item in value.items())
        return (b"}" if protocol else b"(dp0\n") + items
    if isinstance(value, list):
        return (b"]" if protocol else b"(lp0\n") + b"".join(_pickled(item, protocol) + b"a" for item in value)
    if isinstance(value, bytes):
        return b"U" + struct.pack("<B", len(value)) + value if protocol else b"S" + repr(value)[1:].encode() + b"\n"
    if isinstance(value, str):
        encoded = value.encode("utf-8" if protocol else "raw-unicode-escape")
        return b"X" + struct.pack("<I", len(encoded)) + encoded if protocol else b"V" + encoded + b"\n"
    return b"I%d\n" % value


@pytest.fixture(scope="session")
def python2_pickle() -> Callable[[object, int], bytes]:
    """Writes a pickle as Python 2 does: `bytes` stand for its `str`, and are written as such."""
    return _python2_pickle


@pytest.fixture(scope="session")
def by_pycocotools() -> Callable[[object, tuple[int, int]], np.ndarray]:
    """The mask (H, W) that pycocotools makes of a segmentation and the size (H, W) of its image."""

    def mask(segmentation: object, size: tuple[int, int]) -> np.ndarray:
        coco = COCO()
        coco.imgs = {1: {"id": 1, "height": size[0], "width": size[1]}}
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # pycocotools on numpy 2
            return np.asarray(coco.annToMask({"image_id": 1, "segmentation": segmentation}), bool)

    return mask


def write_images(folder: Path, year: int) -> list[dict[str, Any]]:
    """Write COCO's images; their entries in `images`."""
    folder.mkdir(exist_ok=True)
    entries = []
    for number, (height, width) in SIZES.items():
        name = f"COCO_train2014_{number:012}.jpg" if year == 2014 else f"{number:012}.jpg"
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        entries.append({"id": number, "file_name": name, "height": height, "width": width, "license": 1})
    return entries


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A polygon around the pixels `[left, right) x [top, bottom)`."""
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


ANNOTATIONS: list[dict[str, Any]] = [
    {"id": 11, "image_id": 1, "category_id": 18, "iscrowd": 0, "segmentation": [rectangle(10, 5, 30, 20)]},
    {"id": 12, "image_id": 1, "category_id": 18, "iscrowd": 0, "segmentation": [[3.2, 4.1, 50.7, 8.9, 20.3, 38.4]]},
    {
        "id": 21,
        "image_id": 2,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [rectangle(0, 0, 10, 10), rectangle(20, 40, 30, 50)],
    },
    {
        "id": 22,
        "image_id": 2,
        "category_id": 1,
        "iscrowd": 1,
        # columns one after another: three pixels of the first, then two of the second
        "segmentation": {"size": [50, 30], "counts": [2, 3, 50, 2, 1443]},
    },
]


@dataclass
class RefCocoSet:
    """RefCOCO in its published files.

    Attributes:
        annotations: Folder of `instances.json` and `refs(unc).p`.
        images: Folder of the images.
        refs: What the pickle holds.
        content: What `instances.json` holds.
    """

    annotations: Path
    images: Path
    refs: list[Any]
    content: dict[str, Any] = field(default_factory=dict)

    def write(self, split_by: str = "unc", protocol: int = 0) -> RefCocoSet:
        """Write both files again."""
        (self.annotations / "instances.json").write_text(json.dumps(self.content), encoding="utf-8")
        (self.annotations / f"refs({split_by}).p").write_bytes(_python2_pickle(self.refs, protocol))
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        values = {"annotations": self.annotations, "images": self.images, "split": "val", **keys}
        return "refcoco:" + ",".join(f"{key}={value}" for key, value in values.items())

    @staticmethod
    def ref(number: int, annotation: int, split: str, *raw: bytes | str) -> dict[bytes, object]:
        """An entry of `refs(unc).p`; its sentences are numbered from ten times its number."""
        ids = [10 * number + index for index in range(len(raw))]
        image = annotation // 10
        return {
            b"sent_ids": ids,
            b"file_name": f"COCO_train2014_{image:012}_{annotation}.jpg".encode(),
            b"ann_id": annotation,
            b"ref_id": number,
            b"image_id": image,
            b"split": split.encode(),
            b"sentences": [
                {b"tokens": [b"x"], b"raw": text, b"sent_id": number, b"sent": text}
                for number, text in zip(ids, raw, strict=True)
            ],
            b"category_id": 18,
        }


@pytest.fixture
def refcoco(tmp_path: Path) -> RefCocoSet:
    annotations = tmp_path / "refcoco"
    annotations.mkdir()
    refs = [
        RefCocoSet.ref(100, 11, "val", b"Left Dog ", b"the dog on the left", b"brown"),
        RefCocoSet.ref(101, 21, "val", b"two men"),
        RefCocoSet.ref(102, 12, "val", b"triangle", "caf\xe9"),
        RefCocoSet.ref(103, 22, "testA", b"small"),
        RefCocoSet.ref(104, 11, "train", b"dog"),
    ]
    content = {"images": write_images(tmp_path / "train2014", 2014), "annotations": ANNOTATIONS, "categories": []}
    return RefCocoSet(annotations, tmp_path / "train2014", refs, content).write()


@dataclass
class PngSet:
    """Panoptic Narrative Grounding in its published files.

    Attributes:
        folder: Of `png_coco_val2017.json`, `panoptic_val2017.json`, and the folders `panoptic` and `val2017`.
        narratives: What the first file holds.
        panoptic: What the second file holds.
        segments: Per image the id of every pixel's segment.
    """

    folder: Path
    narratives: list[Any]
    panoptic: dict[str, Any]
    segments: dict[int, np.ndarray]

    def write(self) -> PngSet:
        """Write everything but the images again."""
        (self.folder / "png_coco_val2017.json").write_text(json.dumps(self.narratives), encoding="utf-8")
        (self.folder / "panoptic_val2017.json").write_text(json.dumps(self.panoptic), encoding="utf-8")
        (self.folder / "panoptic").mkdir(exist_ok=True)
        for number, ids in self.segments.items():
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(colours).save(self.folder / "panoptic" / f"{number:012}.png")
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        values = {
            "narratives": self.folder / "png_coco_val2017.json",
            "panoptic": self.folder / "panoptic_val2017.json",
            "segments": self.folder / "panoptic",
            "images": self.folder / "val2017",
            **keys,
        }
        return "png:" + ",".join(f"{key}={value}" for key, value in values.items())

    @staticmethod
    def utterance(words: str, *segments: int, plural: bool = False) -> dict[str, object]:
        """A part of a narrative."""
        ids = [str(segment) for segment in segments]
        return {"utterance": words, "segment_ids": ids, "plural": plural, "noun": bool(ids)}


DOG, MAN, GRASS, SKY = 7, 300, 70_000, 16_000_000  # ids that need one, two and three bytes


@pytest.fixture
def png(tmp_path: Path) -> PngSet:
    first, second = np.zeros(SIZES[1], np.int64), np.zeros(SIZES[2], np.int64)
    first[:10], first[10:], first[20:30, 5:25], first[20:30, 30:40] = SKY, GRASS, DOG, MAN
    second[:, :15], second[:, 15:] = GRASS, MAN
    categories = {DOG: 18, MAN: 1, GRASS: 193, SKY: 187}

    def annotation(number: int, *segments: int) -> dict[str, object]:
        infos = [{"id": segment, "category_id": categories[segment], "iscrowd": 0} for segment in segments]
        return {"image_id": number, "file_name": f"{number:012}.png", "segments_info": infos}

    panoptic = {
        "images": write_images(tmp_path / "val2017", 2017),
        "annotations": [annotation(1, SKY, GRASS, DOG, MAN), annotation(2, GRASS, MAN)],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 187, "name": "sky-other-merged", "isthing": 0},
            {"id": 193, "name": "grass-merged", "isthing": 0},
        ],
    }
    narratives = [
        {
            "image_id": "1",
            "caption": "Here is a dog and the man on grass. Everything under the sky.",
            "segments": [
                PngSet.utterance("Here is"),
                PngSet.utterance("a dog", DOG),
                PngSet.utterance("and"),
                PngSet.utterance("the man", MAN),
                PngSet.utterance("on"),
                PngSet.utterance("grass", GRASS),
                PngSet.utterance("."),
                PngSet.utterance("Everything", GRASS, DOG, MAN, plural=True),
                PngSet.utterance("under"),
                PngSet.utterance("the sky", SKY),
                PngSet.utterance("."),
            ],
        },
        {"image_id": "2", "caption": "A man", "segments": [PngSet.utterance("A man", MAN)]},
    ]
    return PngSet(tmp_path, narratives, panoptic, {1: first, 2: second}).write()


@dataclass
class InstancesSet:
    """An instances file with hand-written captions.

    Attributes:
        folder: Of `instances.json`, `captions.jsonl`, and the folder `images`.
    """

    folder: Path

    def write(self, *captions: object) -> InstancesSet:
        """Write the captions again, a line for each; strings unchanged."""
        lines = [caption if isinstance(caption, str) else json.dumps(caption) for caption in captions]
        (self.folder / "captions.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        values = {
            "annotations": self.folder / "instances.json",
            "captions": self.folder / "captions.jsonl",
            "images": self.folder / "images",
            **keys,
        }
        return "instances:" + ",".join(f"{key}={value}" for key, value in values.items())


@pytest.fixture
def instances(tmp_path: Path) -> InstancesSet:
    content = {"images": write_images(tmp_path / "images", 2017), "annotations": ANNOTATIONS, "categories": []}
    (tmp_path / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return InstancesSet(tmp_path).write(
        {
            "image_id": 1,
            "text": "a dog by a dog",
            "phrases": [{"span": [9, 14], "annotations": [12]}, {"text": "by", "annotations": [11, 12]}],
        },
        {"image_id": 2, "text": "two men", "phrases": [{"text": "men", "annotations": [21], "tags": ["human"]}]},
    )
