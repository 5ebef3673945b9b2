"""Folders of labelme: a JSON file per image.

```json
{"imagePath": "a.jpg", "imageHeight": 480, "imageWidth": 640,
 "shapes": [{"label": "a dog", "shape_type": "polygon", "points": [[10.5, 20.0], [30.0, 20.0], [30.0, 40.0]]}]}
```

Shapes are polygons, rectangles, circles and masks; a line or a point has no area, and is an error. Every label is a
phrase (`vlm_adapters.data.formats.labelled`).
"""

from __future__ import annotations

import base64
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated as Checked

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import ProblemList
from vlm_adapters.data.documents import read_json
from vlm_adapters.data.formats.drawn_shapes import box_mask, ellipse_mask
from vlm_adapters.data.formats.labelled import LabelledImage, LabelledImages, Shape, drawn, placed, usable_labels
from vlm_adapters.data.formats.mask_png import read_mask_png
from vlm_adapters.data.formats.masks import mask_of
from vlm_adapters.data.uri import format_uri
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown

_Coordinate = Checked[float, Field(allow_inf_nan=False)]
_Point = Checked[list[_Coordinate], Field(min_length=2, max_length=2)]
_TWO_POINTS = ("rectangle", "circle", "mask")


class LabelmeShape(BaseModel):
    """A shape, as it stands in a file."""

    model_config = ConfigDict(strict=True)

    label: str
    points: list[_Point] = Field(min_length=1)
    shape_type: str = "polygon"
    mask: str | None = None

    def usable(self, place: str, limits: Limits) -> Shape:
        """The shape, to be drawn.

        Raises:
            DataError: It has no area, or too few points.
        """
        polygons = [[value for point in self.points for value in point]]
        if self.shape_type in ("polygon", "oriented_rectangle"):
            return Shape(self.label, place, partial(mask_of, polygons, limits=limits), polygons)
        if self.shape_type not in _TWO_POINTS:
            raise DataError(
                f"{place} is a {shown(self.shape_type)}, which has no area. Draw a polygon, rectangle, circle or mask."
            )
        if len(self.points) < 2 or (self.shape_type == "mask" and self.mask is None):
            raise DataError(f"{place} is a {self.shape_type} with too few points, or without its mask. Draw it again.")
        return Shape(self.label, place, getattr(self, f"_{self.shape_type}"))

    def _rectangle(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        x, y = zip(*self.points, strict=True)
        return box_mask((min(x), min(y), max(x), max(y)), size)

    def _circle(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        (x, y), rim = self.points[:2]
        radius = math.dist((x, y), rim)
        return ellipse_mask((x, y), (radius, radius), size)

    def _mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        (left, top), (right, bottom) = (map(int, point) for point in self.points[:2])
        part = (bottom - top + 1, right - left + 1)
        if max(part) > max(size):
            raise DataError(f"its rectangle of {part[0]} x {part[1]} is larger than the image.")
        try:
            content = base64.b64decode(self.mask or "", validate=True)
        except ValueError as error:
            raise DataError(f"its mask is not base64: {error}.") from error
        return placed(read_mask_png(content, part), (left, top), size)


class LabelmeFile(BaseModel):
    """What a JSON file holds."""

    model_config = ConfigDict(strict=True, populate_by_name=True)

    image: str = Field(alias="imagePath", min_length=1)
    height: int | None = Field(default=None, alias="imageHeight")
    width: int | None = Field(default=None, alias="imageWidth")
    shapes: list[LabelmeShape]

    @classmethod
    def read(cls, path: Path, limits: Limits) -> LabelmeFile:
        """Read a file; the copy of the image that labelme puts into it is passed over.

        Raises:
            DataError: It is missing, of another form, or beyond the limits.
        """
        content = read_json(path, replace(limits, max_file_bytes=_longest(limits)))
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{path} is not a file of labelme: {first_mistake(error)}.") from None

    def usable_shapes(self, limits: Limits) -> tuple[Shape, ...]:
        """The shapes, to be drawn.

        Raises:
            DataError: One has no area.
        """
        return tuple(shape.usable(f"shapes[{index}]", limits) for index, shape in enumerate(self.shapes))


def _longest(limits: Limits) -> int:
    """Longest file: as a line of JSON, with room for the copy of the image that it may hold."""
    return 16 * limits.max_line_bytes


class Labelme(LabelledImages):
    """A folder of labelme. A sample's id is the name of its JSON file.

    Args:
        path: The folder of the JSON files. `imagePath` is relative to it and stays in it.
        images: The folder of the images, if it is another one; only the last part of `imagePath` is then used.
        access: How far the files may reach.

    Raises:
        DataError: There is no such folder, or it has no JSON file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        folder = ImageFolder.existing(path, access)
        self._jsons = folder.path
        self._has_own_images = images is not None
        super().__init__(folder if images is None else ImageFolder.existing(images, access), found := [])
        files = sorted(folder.path.glob("*.json"))
        if not files:
            raise DataError(f"{folder.path} has no JSON file. Give the folder in which labelme saved them.")
        problems = ProblemList(folder.path, access.limits.max_problems)
        for file in files:
            try:
                found.append(self._entry(file))
            except DataError as error:
                problems.add(f"{file}", str(error))
        self.problems = problems.as_tuple()

    @property
    @override
    def source(self) -> str:
        images = str(self._folder.path) if self._has_own_images else None
        return format_uri("labelme", {"path": str(self._jsons), "images": images})

    @override
    def files(self) -> tuple[Path, ...]:
        return tuple(Path(image.place) for image in self._images)

    @override
    def masks(self, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        image, limits = self._images[index], self.access.limits
        content = LabelmeFile.read(Path(image.place), limits)
        if content.height is not None and content.width is not None and (content.height, content.width) != size:
            raise DataError(
                f"The image {image.file} is {size[0]} x {size[1]}, and its shapes were drawn on one of "
                f"{shown(content.height)} x {shown(content.width)} (height x width). Give that image."
            )
        return drawn(content.usable_shapes(limits), image.labels, size, limits)

    def _entry(self, file: Path) -> LabelledImage:
        content = LabelmeFile.read(file, self.access.limits)
        labels = usable_labels((shape.label for shape in content.usable_shapes(self.access.limits)), self.access.limits)
        name = content.image.replace("\\", "/").rpartition("/")[2] if self._has_own_images else content.image
        return LabelledImage(file.stem, self._folder.named(name), labels, str(file))
