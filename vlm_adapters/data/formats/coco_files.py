"""What all files of COCO have in common: images, annotations, and their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.documents import read_json
from vlm_adapters.data.formats.by_id import ById, identity, whole
from vlm_adapters.data.formats.masks import mask_of, outline_length
from vlm_adapters.data.formats.neighbours import form_of
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image, read_header
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown


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
        limits: What is accepted of masks.
    """

    path: Path
    images: ById[CocoImage]
    annotations: ById[CocoAnnotation]
    limits: Limits

    @classmethod
    def read(cls, path: Path, access: Access = DEFAULT_ACCESS) -> Instances:
        """Read the file.

        Raises:
            DataError: It is missing, not JSON, or of another form.
        """
        return cls.of(path, read_json(path, access.limits), access.limits)

    @classmethod
    def of(cls, path: Path, content: object, limits: Limits) -> Instances:
        """Take the content of a file that has been read.

        Raises:
            DataError: It is of another form.
        """
        images = read_images(path, content, limits)
        found = entries(path, content, "annotations")
        if (form := form_of(content)) and not form.is_instances:
            raise DataError(f"{path} is not an instances file: it looks like {form}.")
        return cls(path, images, ById(path, "annotations", found, _annotation), limits)

    def mask(self, annotation: int) -> NDArray[np.bool_]:
        """Decode the mask `(H, W)` of an annotation, by its id.

        Raises:
            DataError: The mask is broken.
        """
        entry = self.annotations[annotation]
        image = self.images[entry.image]
        if not entry.segmentation:
            raise DataError(
                f"Annotation {annotation} of {self.path} has no mask, as in a file with boxes only: its segmentation "
                f"is {shown(entry.segmentation)}, neither polygons nor run lengths. Give a file with masks."
            )
        try:
            return mask_of(entry.segmentation, (image.height, image.width), self.limits)
        except DataError as error:
            raise DataError(f"Annotation {annotation} of {self.path} has a broken mask: {error}") from error

    def masks(self, phrases: Sequence[Sequence[int]], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Decode the masks `(P, H, W)` of phrases, each the union of its annotations of one image.

        Args:
            phrases: The ids of the annotations of every phrase.
            size: `(H, W)` of the image.

        Raises:
            DataError: A mask is broken, or together they are beyond the limits.
        """
        users: dict[int, list[int]] = {}
        for index, numbers in enumerate(phrases):
            for annotation in numbers:
                users.setdefault(annotation, []).append(index)
        masks = blank_masks(len(phrases), size, self.limits)
        if len(users) * size[0] * size[1] > 4 * self.limits.max_mask_pixels:
            raise DataError(
                f"{len(users)} annotations of {size[0]} x {size[1]} pixels are too many for one sample. Divide it, or "
                "pass Limits(max_mask_pixels=...) to open_dataset."
            )
        outline = 0.0
        for annotation, indices in users.items():
            mask = self.mask(annotation)
            for index in dict.fromkeys(indices):
                masks[index] |= mask
            outline += outline_length(self.annotations[annotation].segmentation)
            check_outline(outline, self.limits)
        return masks


def blank_masks(phrases: int, size: tuple[int, int], limits: Limits) -> NDArray[np.bool_]:
    """Make masks `(P, H, W)` without a pixel, for phrases to be filled in.

    Raises:
        DataError: They are beyond the limits.
    """
    if phrases > limits.max_phrases or phrases * size[0] * size[1] > limits.max_mask_pixels:
        raise DataError(
            f"{phrases:,} masks of {size[0]} x {size[1]} pixels are too many for one sample: at most "
            f"{limits.max_phrases:,}, and {limits.max_mask_pixels:,} pixels together. Divide it, or pass "
            "Limits(max_phrases=..., max_mask_pixels=...) to open_dataset."
        )
    return np.zeros((phrases, *size), np.bool_)


def check_outline(length: float, limits: Limits) -> None:
    """Refuse polygons whose outlines are together too long for one sample.

    Raises:
        DataError: They are.
    """
    if length > limits.max_outline:
        raise DataError(
            f"The outlines of its masks are longer than {limits.max_outline:,} pixels. Simplify them, or pass "
            "Limits(max_outline=...) to open_dataset."
        )


def _annotation(entry: Mapping[str, Any]) -> CocoAnnotation:
    if "image_id" not in entry:
        raise DataError("It has no image_id. Fix it in the file.")
    return CocoAnnotation(identity(entry["image_id"]), entry.get("segmentation"))


def entries(path: Path, content: object, key: str) -> list[object]:
    """Look up the list under `key` of a JSON object; what it holds is not checked.

    Raises:
        DataError: There is no such list; the message names the file and, if it is known, its form.
    """
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        form = form_of(content)
        looks = f": it looks like {form}" if form else ""
        raise DataError(f"{path} has no list {key!r}{looks}. Give a file in COCO's format.")
    return found


def read_images(path: Path, content: object, limits: Limits) -> ById[CocoImage]:
    """Read the list `images` of a file, by id.

    Raises:
        DataError: There is no such list.
    """

    def read(entry: Mapping[str, Any]) -> CocoImage:
        name, height, width = entry.get("file_name"), whole(entry.get("height")), whole(entry.get("width"))
        if not isinstance(name, str) or not name or height is None or width is None or min(height, width) < 1:
            found = ", ".join(f"{key} {shown(entry.get(key))}" for key in ("file_name", "height", "width"))
            raise DataError(
                f"The image {shown(entry['id'])} has no usable file_name, height and width: found {found}. Give "
                "a name and sizes in pixels."
            )
        if height * width > limits.max_pixels:
            raise DataError(f"The image {shown(entry['id'])} is {shown(height)} x {shown(width)} pixels, too large.")
        return CocoImage(name, height, width)

    return ById(path, "images", entries(path, content, "images"), read)


def image_path(folder: ImageFolder, images: ById[CocoImage], number: int) -> Path:
    """Find the path of an image by its id; whether a link leads out of the folder is not looked at.

    Raises:
        DataError: The image is not listed or unusable, or its name leads out of the folder.
    """
    entry = images[number]
    try:
        return folder.named(entry.file_name)
    except DataError as error:
        raise DataError(f"The file_name of image {number} in {images.path}: {error}") from error


def open_image(path: Path, size: tuple[int, int], limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Open an image whose masks have `size` `(H, W)`.

    Raises:
        ImageError: It is missing or cannot be used.
        DataError: Its size differs, or an EXIF orientation turns it so that its masks may no longer fit.
    """
    image, header = load_image(path, limits), read_header(path, limits)
    upright = (image.height, image.width)
    if upright == size and (header.orientation == 1 or header.size != size):
        return image
    turned = f" when upright, by its EXIF orientation {header.orientation}" if header.orientation != 1 else ""
    remedy = "Remove the orientation tag" if turned else "Give the image for which they were made"
    raise DataError(
        f"The image {path} is {upright[0]} x {upright[1]}{turned}, and its masks are {size[0]} x {size[1]} as they "
        f"stand in the file (height x width). {remedy}."
    )
