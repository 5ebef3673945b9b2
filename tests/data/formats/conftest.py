"""Scenes written in the published forms of other benchmarks, by code that shares nothing with the readers."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from vlm_adapters.data.formats.scenes import Scenes


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask, safe for JSON."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


@dataclass
class GRefCocoSet:
    """gRefCOCO in its published files.

    Attributes:
        folder: Of `instances.json`, `grefs(unc).json`, and the folder `train2014`.
        scenes: The scenes that it was made of; image `n` is scene `n`, annotation `10 n + k` its shape `k`.
        refs: What the file of refs holds.
        content: What `instances.json` holds.
    """

    folder: Path
    scenes: Scenes
    refs: list[Any] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)

    def write(self) -> GRefCocoSet:
        """Write both files again."""
        (self.folder / "instances.json").write_text(json.dumps(self.content), encoding="utf-8")
        (self.folder / "grefs(unc).json").write_text(json.dumps(self.refs), encoding="utf-8")
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        values = {"annotations": self.folder, "images": self.folder / "train2014", "split": "val", **keys}
        return "grefcoco:" + ",".join(f"{key}={value}" for key, value in values.items())

    @staticmethod
    def ref(number: int, image: int, targets: list[int], *raw: str, split: str = "val") -> dict[str, Any]:
        """An entry of `grefs(unc).json`; its sentences are numbered from ten times its number."""
        sentences = [
            {"tokens": text.split(), "raw": text, "sent_id": 10 * number + index, "sent": text.lower()}
            for index, text in enumerate(raw)
        ]
        return {
            "image_id": image,
            "split": split,
            "sentences": sentences,
            "file_name": f"COCO_train2014_{image:012}.jpg",
            "category_id": [1] * len(targets) if targets else [-1],
            "ann_id": targets or [-1],
            "sent_ids": [sentence["sent_id"] for sentence in sentences],
            "ref_id": number,
            "no_target": not targets,
        }


@pytest.fixture
def grefcoco(tmp_path: Path) -> GRefCocoSet:
    scenes = Scenes(3, seed=6)
    (tmp_path / "train2014").mkdir()
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        name = f"COCO_train2014_{number:012}.jpg"
        scene.image.save(tmp_path / "train2014" / name)
        images.append({"id": number, "file_name": name, "height": scene.image.height, "width": scene.image.width})
        annotations += [
            {
                "id": 10 * number + k,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": run_lengths(mask),
            }
            for k, mask in enumerate(scene.masks)
        ]
    annotations[0]["segmentation"] = [[20.5, 10.0, 80.0, 15.5, 60.0, 70.0], [5, 5, 9, 5, 9, 9]]
    refs = [
        GRefCocoSet.ref(1, 0, [0], "The First Thing ", "that one"),
        GRefCocoSet.ref(2, 0, [1, 0], "both of them"),
        GRefCocoSet.ref(3, 1, [], "a pink elephant"),
        GRefCocoSet.ref(4, 2, [20, 21], "these two"),
        GRefCocoSet.ref(5, 2, [], "nothing", split="testA"),
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "shape"}]}
    return GRefCocoSet(tmp_path, scenes, refs, content).write()


@dataclass
class ReasonSegSet:
    """A split of ReasonSeg in its published files.

    Attributes:
        folder: Of the images and, beside each, its JSON file.
        files: What the JSON files hold, by the names of their images.
    """

    folder: Path
    files: dict[str, Any]

    def write(self) -> ReasonSegSet:
        """Write the JSON files again."""
        for name, content in self.files.items():
            (self.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        return "reasonseg:" + ",".join(f"{key}={value}" for key, value in {"path": self.folder, **keys}.items())


def polygon(label: str, *points: tuple[float, float]) -> dict[str, Any]:
    """A shape of a JSON file."""
    return {
        "label": label,
        "labels": [label],
        "shape_type": "polygon",
        "image_name": "",
        "points": list(map(list, points)),
    }


def box(label: str, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    """A shape around the pixels `[left, right] x [top, bottom]`; both ends belong to it."""
    return polygon(label, (left, top), (right, top), (right, bottom), (left, bottom))


@pytest.fixture
def reasonseg(tmp_path: Path) -> ReasonSegSet:
    files = {
        "1_a": {
            "text": ["the thing that one would sit on", "where is the seat?"],
            "is_sentence": True,
            "shapes": [box("target", 10, 10, 59, 49), box("ignore", 20, 20, 29, 29), box("flag", 0, 0, 99, 99)],
        },
        "2_b": {
            "text": ["the seat"],
            "is_sentence": False,
            "shapes": [box("ignore_more", 40, 40, 99, 99), box("target", 50, 50, 59, 59)],
        },
    }
    for name, scene in zip(files, Scenes(2, seed=7), strict=True):
        scene.image.save(tmp_path / f"{name}.jpg")
    return ReasonSegSet(tmp_path, files).write()


@dataclass
class RefCocoMSet:
    """RefCOCO-M in its published files.

    Attributes:
        folder: Of the folder `data` with the parquet files.
        scenes: The scenes that it was made of; row `n` is scene `n`, sample `10 n + k` its shape `k`.
        rows: What the files hold; the first one has all but the last row.
    """

    folder: Path
    scenes: Scenes
    rows: list[dict[str, Any]]

    def write(self, row_group_size: int = 2) -> RefCocoMSet:
        """Write both files again."""
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415

        mask = pa.struct([("counts", pa.string()), ("size", pa.list_(pa.int32()))])
        target = [
            ("id", pa.int64()),
            ("image_id", pa.int64()),
            ("category", pa.string()),
            ("supercategory", pa.string()),
        ]
        target += [("label", pa.string()), ("sentences", pa.list_(pa.string())), ("bbox", pa.list_(pa.float32()))]
        schema = pa.schema(
            [
                ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                ("image_id", pa.int64()),
                ("file_name", pa.string()),
                ("samples", pa.list_(pa.struct([*target, ("mask", mask)]))),
            ]
        )
        (self.folder / "data").mkdir(exist_ok=True)
        for number, rows in enumerate((self.rows[:-1], self.rows[-1:])):
            table = pa.Table.from_pylist(rows, schema=schema)
            file = self.folder / "data" / f"validation-{number:05}-of-00002.parquet"
            parquet.write_table(table, file, row_group_size=row_group_size)
        return self

    def uri(self, **keys: object) -> str:
        """The set in one line, as a user writes it."""
        return "refcoco_m:" + ",".join(f"{key}={value}" for key, value in {"path": self.folder, **keys}.items())


@pytest.fixture
def refcoco_m(tmp_path: Path) -> RefCocoMSet:
    pytest.importorskip("pyarrow")
    scenes = Scenes(4, seed=8)
    rows = []
    for number, scene in enumerate(scenes):
        encoded = io.BytesIO()
        scene.image.save(encoded, format="PNG")
        name = f"COCO_train2014_{number:012}.jpg"
        samples = [
            {
                "id": 10 * number + k,
                "image_id": number,
                "category": "shape",
                "supercategory": "thing",
                "label": "shape",
                "sentences": [f" {phrase.text}", f"{phrase.text}, please"],
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "mask": run_lengths(mask),
            }
            for k, (phrase, mask) in enumerate(zip(scene.phrases, scene.masks, strict=True))
        ]
        image = {"bytes": encoded.getvalue(), "path": name}
        rows.append({"image": image, "image_id": number, "file_name": name, "samples": samples})
    return RefCocoMSet(tmp_path, scenes, rows).write()
