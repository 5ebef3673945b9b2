"""What images with labelled shapes have in common: every label is a phrase, and its mask is the union of its shapes.

The text of an image is its labels, as they are written, joined by commas in the order in which they first occur.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.data.access import ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import blank_masks, check_outline, open_image
from vlm_adapters.data.formats.mask_png import check_mask_size
from vlm_adapters.data.formats.masks import outline_length
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.limits import Limits, shown
from vlm_adapters.prompt import Phrase

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image of which the shapes are known by their labels.

    Attributes:
        id: The sample's id, and the image's.
        file: The image.
        labels: The labels, each once, in their order.
        place: The place in its files, as in `Problem.place`.
        size: `(H, W)` of the stored image for which the shapes were drawn; None where they were drawn on the upright
            image, whatever its size.
    """

    id: str
    file: Path
    labels: tuple[str, ...]
    place: str
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that somebody drew.

    Attributes:
        label: Its label.
        place: Where in the files it stands.
        draw: Draws its mask `(H, W)` for an image of that size. Raises a DataError that begins with what is wrong.
        polygons: What it is drawn from, if these are polygons.
    """

    label: str
    place: str
    draw: Callable[[tuple[int, int]], Mask]
    polygons: object = None


class LabelledImages(Dataset):
    """A data set of which every sample is an image with the labels of its shapes.

    Args:
        folder: The folder of the images.
        images: The samples.
    """

    def __init__(self, folder: ImageFolder, images: Sequence[LabelledImage]) -> None:
        self.access = folder.access
        self._folder = folder
        self._images = images

    @abstractmethod
    def masks(self, index: int, size: tuple[int, int]) -> Mask:
        """Draw the masks `(P, H, W)` of the labels of a sample.

        Raises:
            DataError: A shape is broken, or beyond the limits.
        """

    def __len__(self) -> int:
        return len(self._images)

    @override
    def annotation(self, index: int) -> Annotation:
        image = self._images[index]
        text, phrases = joined(image.labels)
        return Annotation(id=image.id, image_id=image.id, text=text, phrases=phrases)

    @override
    def place(self, index: int) -> str:
        return self._images[index].place

    @override
    def image_file(self, index: int) -> Path:
        return self._images[index].file

    @override
    def sample(self, index: int) -> Sample:
        entry = self._images[index]
        file, limits = self._folder.check_inside(entry.file), self.access.limits
        image = load_image(file, limits) if entry.size is None else open_image(file, entry.size, limits)
        size = (image.height, image.width)
        return Sample(**vars(self.annotation(index)), image=image, masks=self.masks(index, size))


def joined(labels: Sequence[str]) -> tuple[str, tuple[Phrase, ...]]:
    """The text of an image, and its labels as phrases of it: `"cat, dog"`."""
    starts = [sum(len(label) + 2 for label in labels[:index]) for index in range(len(labels))]
    phrases = tuple(Phrase(label, start, start + len(label)) for label, start in zip(labels, starts, strict=True))
    return ", ".join(labels), phrases


def usable_labels(labels: Iterable[str], limits: Limits) -> tuple[str, ...]:
    """The labels without white space around them, each once.

    Raises:
        DataError: There is none, one is blank, or they are beyond the limits.
    """
    found = tuple(dict.fromkeys(label.strip() for label in labels))
    if not found:
        raise DataError("It has no shape. Label something, or leave the image out.")
    if "" in found:
        raise DataError("A label is blank. Fix it in the file.")
    blank_masks(len(found), (1, 1), limits)
    usable_text(", ".join(found), limits)
    return found


def drawn(shapes: Sequence[Shape], labels: Sequence[str], size: tuple[int, int], limits: Limits) -> Mask:
    """Draw the masks `(P, H, W)` of labels, each the union of its shapes.

    Raises:
        DataError: A shape is broken, or together they are beyond the limits.
    """
    masks = blank_masks(len(labels), size, limits)
    if len(shapes) * size[0] * size[1] > 4 * limits.max_mask_pixels:
        raise DataError(
            f"{len(shapes)} shapes of {size[0]} x {size[1]} pixels are too many for one image. Divide it, or pass "
            "Limits(max_mask_pixels=...) to open_dataset."
        )
    outline = 0.0
    for shape in shapes:
        try:
            masks[labels.index(shape.label.strip())] |= shape.draw(size)
        except DataError as error:
            raise DataError(f"{shape.place} ({shown(shape.label)}): {error}") from error
        outline += outline_length(shape.polygons)
        check_outline(outline, limits)
    return masks


def placed(part: Mask, corner: tuple[int, int], size: tuple[int, int]) -> Mask:
    """Lay a mask of a rectangle into one of the image.

    Args:
        part: `(h, w)`.
        corner: `(left, top)` of the rectangle in the image.
        size: `(H, W)` of the image.

    Raises:
        DataError: The rectangle leaves the image.
    """
    (left, top), (height, width) = corner, part.shape
    if left < 0 or top < 0:
        raise DataError(f"its rectangle begins at {shown(list(corner))}, outside the image.")
    mask = np.zeros(size, np.bool_)
    inside = mask[top : top + height, left : left + width]
    if inside.shape != part.shape:
        check_mask_size((top + height, left + width), size)
    inside[:] = part
    return mask
