"""What all files of COCO have in common: images, annotations, and their masks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.data.rle import decode_rle
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image, read_header
from vlm_adapters.limits import shown


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of `images`.

    Attributes:
        file_name: The file, relative to the folder of images.
        height: Height in pixels, which is also that of its masks.
        width: Width in pixels, which is also that of its masks.
    """

    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """An entry of `annotations`.

    Attributes:
        image: The id of its image.
        segmentation: Its mask as it stands in the file; `mask_of` checks it.
    """

    image: int
    segmentation: object


@dataclass(frozen=True)
class Instances:
    """An instances file of COCO.

    Attributes:
        path: The file.
        images: The images by their ids.
        annotations: The annotations by their ids.
    """

    path: Path
    images: Mapping[int, CocoImage]
    annotations: Mapping[int, CocoAnnotation]

    @classmethod
    def read(cls, path: Path) -> Instances:
        """Read the file.

        Raises:
            DataError: It is missing or not JSON, or an entry lacks its id, size or image.
        """
        content = read_json(path)
        return cls(
            path,
            read_images(path, content),
            {
                identity(entry["id"]): CocoAnnotation(identity(entry["image_id"]), entry.get("segmentation"))
                for entry in entries(path, content, "annotations", ("id", "image_id"))
            },
        )

    def mask(self, annotation: int) -> NDArray[np.bool_]:
        """Decode the mask `(H, W)` of an annotation, by its id.

        Raises:
            DataError: The mask is broken.
        """
        entry = self.annotations[annotation]
        image = self.images[entry.image]
        try:
            return mask_of(entry.segmentation, (image.height, image.width))
        except DataError as error:
            raise DataError(f"Annotation {annotation} of {self.path} has a broken mask: {error}") from error


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        DataError: It is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check the path.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}. Download it again.") from error


def entries(path: Path, content: object, key: str, needed: Sequence[str]) -> list[Mapping[str, Any]]:
    """Check the list under `key` of a JSON object, whose entries are objects with the keys `needed`.

    Raises:
        DataError: There is no such list, or an entry lacks a key; the message names the file and the entry.
    """
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        raise DataError(f"{path} has no list {key!r}. Give a file in COCO's format.")
    for index, entry in enumerate(found):
        if not isinstance(entry, dict) or not entry.keys() >= set(needed):
            raise DataError(f"{path} {key}[{index}] is not an object with {', '.join(needed)}. Fix it in the file.")
        for name in needed:
            if name.endswith("id"):
                identity(entry[name], f"{path} {key}[{index}]: ")
    return cast("list[Mapping[str, Any]]", found)


def read_images(path: Path, content: object) -> dict[int, CocoImage]:
    """Read the list `images` of a file, by id.

    Raises:
        DataError: An entry lacks its id, size or file.
    """
    images = {}
    for entry in entries(path, content, "images", ("id", "file_name", "height", "width")):
        name, height, width = entry["file_name"], entry["height"], entry["width"]
        if not (
            isinstance(name, str) and isinstance(height, int) and isinstance(width, int) and min(height, width) > 0
        ):
            raise DataError(f"{path} images: the image {entry['id']!r} has no usable file_name, height and width.")
        images[identity(entry["id"])] = CocoImage(name, height, width)
    return images


def identity(value: object, place: str = "") -> int:
    """Read an id that is written as a number or as a string of digits.

    Args:
        value: The id as it stands in the file.
        place: The beginning of an error message.

    Raises:
        DataError: It is neither.
    """
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
        return int(value)
    raise DataError(f"{place}The id {value!r} is not an integer. Fix it in the file.")


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Check that a folder exists.

    Raises:
        DataError: It does not.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Check the path.")
    return folder


def open_image(path: Path, size: tuple[int, int]) -> Image.Image:
    """Open an image whose masks have `size` `(H, W)`.

    Raises:
        ImageError: It is missing or cannot be used.
        DataError: Its size differs, or an EXIF orientation turns it so that its masks may no longer fit.
    """
    image, header = load_image(path), read_header(path)
    upright = (image.height, image.width)
    if upright == size and (header.orientation == 1 or header.size != size):
        return image
    turned = f" when upright, by its EXIF orientation {header.orientation}" if header.orientation != 1 else ""
    remedy = "Remove the orientation tag" if turned else "Give the image for which they were made"
    raise DataError(
        f"The image {path} is {upright[0]} x {upright[1]}{turned}, and its masks are {size[0]} x {size[1]} as they "
        f"stand in the file (height x width). {remedy}."
    )


def mask_of(segmentation: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Rasterise COCO's polygons or decode its run lengths, compressed or not, as a `(H, W)` mask.

    Args:
        segmentation: A list of polygons `[x, y, x, y, ...]` in pixels, or `{"size": [H, W], "counts": ...}`.
        size: `(H, W)` of the image.

    Raises:
        DataError: It is malformed, or its size differs.
    """
    if isinstance(segmentation, Mapping):
        return _decoded(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"it is {shown(segmentation)}, neither polygons nor run lengths.")
    for polygon in segmentation:
        _check_polygon(polygon, size)
    coder = _pycocotools()
    merged = coder.merge(coder.frPyObjects(segmentation, *size))
    return decode_rle({"size": list(size), "counts": merged["counts"].decode()})


def _decoded(rle: Mapping[str, object], size: tuple[int, int]) -> NDArray[np.bool_]:
    if rle.get("size") != list(size):
        raise DataError(f"its size is {shown(rle.get('size'))}, and the image is {list(size)} (height, width).")
    counts = rle.get("counts")
    if not isinstance(counts, list):
        return decode_rle(rle)
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != math.prod(size):
        raise DataError(f"its run lengths do not cover the {size[0]} x {size[1]} pixels of the image.")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")


def _check_polygon(polygon: object, size: tuple[int, int]) -> None:
    # pycocotools is C: an edge takes time and memory by its length, and NaN passes for a coordinate
    farthest = 10 * max(size)
    numbers = isinstance(polygon, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in polygon
    )
    if not numbers or len(cast("list[float]", polygon)) < 6 or len(cast("list[float]", polygon)) % 2:
        raise DataError(f"the polygon {shown(polygon)} is not a list of three or more points x, y.")
    if max(map(abs, cast("list[float]", polygon))) > farthest:
        raise DataError(f"the polygon {shown(polygon)} lies far outside the image of {size[0]} x {size[1]} pixels.")


def _pycocotools() -> Any:
    try:
        from pycocotools import mask  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise DataError(
            'Polygons need pycocotools, which is not installed. Install it with pip install "vlm-adapters[data]".'
        ) from error
    return mask
