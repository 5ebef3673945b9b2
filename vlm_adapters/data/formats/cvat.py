"""An XML file of CVAT ("CVAT for images 1.1"), read without any entity or declaration of its own.

Boxes, polygons, ellipses and masks are read; polylines, points and the like have no area, and are an error. Every label
is a phrase (`vlm_adapters.data.formats.labelled`). Images without a shape are left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import ProblemList
from vlm_adapters.data.formats.drawn_shapes import box_mask, ellipse_mask
from vlm_adapters.data.formats.labelled import LabelledImage, LabelledImages, Shape, drawn, placed, usable_labels
from vlm_adapters.data.formats.masks import mask_of
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown
from vlm_adapters.reading import read_at_most

Attributes = Mapping[str, str]

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


class Cvat(LabelledImages):
    """An XML file of CVAT. A sample's id is that of its image in the file.

    Args:
        annotations: The file, such as `annotations.xml`.
        images: The folder of the images.
        access: How far it may reach.

    Raises:
        DataError: The file or folder is missing, or the file is malformed.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        folder = ImageFolder.existing(images, access)
        self._path = Path(annotations)
        reader = _Reader(self._path, folder)
        super().__init__(folder, reader.read())
        self._shapes = reader.shapes
        self.problems = reader.problems.as_tuple()

    @property
    @override
    def source(self) -> str:
        return format_uri("cvat", {"annotations": str(self._path), "images": str(self._folder.path)})

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._path,)

    @override
    def masks(self, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        return drawn(self._shapes[index], self._images[index].labels, size, self.access.limits)


class _Reader:
    """Collects the images of a file while it is parsed; nothing else of it is kept."""

    def __init__(self, path: Path, folder: ImageFolder) -> None:
        self._path, self._folder, self._limits = path, folder, folder.access.limits
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._image: Attributes | None = None
        self._place, self._current, self._mistake = "", list[Shape](), ""
        self._images: list[LabelledImage] = []
        self._ids: set[str] = set()
        self.shapes: list[tuple[Shape, ...]] = []
        self.problems = ProblemList(path, self._limits.max_problems)

    def read(self) -> list[LabelledImage]:
        """Read the file.

        Raises:
            DataError: It is missing, not XML of this form, or beyond the limits.
        """
        try:
            content = read_at_most(self._path, self._limits.max_file_bytes)
        except FileNotFoundError:
            raise DataError(f"There is no file {self._path}. Check the path.") from None
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}. Check the file.") from error
        if (tags := content.count(b"<")) > self._limits.max_containers:
            raise DataError(f"{self._path} has {tags:,} tags; at most {self._limits.max_containers:,} are read.")
        try:
            self._parser.Parse(content, True)  # noqa: FBT003 - expat takes it by position
        except DataError:
            raise
        except (expat.ExpatError, LookupError, ValueError) as error:  # the last two are about its encoding
            raise DataError(f"{self._here()}: It cannot be read as XML: {shown(str(error))[1:-1]}.") from error
        return self._images

    def _refuse(self, *_: object) -> None:
        raise DataError(
            f"{self._here()}: It declares a DOCTYPE, which no export of CVAT has. Export it as CVAT for images 1.1."
        )

    def _here(self) -> str:
        return f"{self._path}:{self._parser.CurrentLineNumber}"

    def _start(self, name: str, attributes: Attributes) -> None:
        if name == "track":
            raise DataError(f"{self._here()}: It is an export for video. Export it as CVAT for images 1.1.")
        if name == "image":
            self._image, self._place, self._current, self._mistake = attributes, self._here(), [], ""
        elif self._image is not None and not self._mistake:
            try:
                self._add(name, attributes)
            except (DataError, KeyError, ValueError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else shown(str(error), 300)[1:-1]
                self._mistake = f"Line {self._parser.CurrentLineNumber}, a {name}: {reason}"

    def _add(self, name: str, attributes: Attributes) -> None:
        if name in _WITHOUT_AREA:
            raise DataError("it has no area. Draw a polygon, box, ellipse or mask.")
        if (read := _SHAPES.get(name)) is not None:
            draw, polygons = read(attributes, self._limits)
            place = f"Line {self._parser.CurrentLineNumber}"
            self._current.append(Shape(attributes["label"], place, draw, polygons))

    def _end(self, name: str) -> None:
        if name != "image" or self._image is None:
            return
        attributes, self._image = self._image, None
        if self._mistake:
            self.problems.add(self._place, self._mistake)
        if self._mistake or not self._current:
            return
        try:
            entry = self._entry(attributes)
        except DataError as error:
            self.problems.add(self._place, str(error))
        else:
            self._images.append(entry)
            self.shapes.append(tuple(self._current))

    def _entry(self, attributes: Attributes) -> LabelledImage:
        try:
            number, name = attributes["id"], attributes["name"]
            size = (int(attributes["height"]), int(attributes["width"]))
        except (KeyError, ValueError) as error:
            raise DataError(f"The image has no usable id, name, width and height: {error}.") from error
        if number in self._ids:
            raise DataError(f"The id {shown(number)} is already that of another image. Give every image its own.")
        labels = usable_labels((shape.label for shape in self._current), self._limits)
        entry = LabelledImage(number, self._folder.named(name), labels, self._place, size)
        self._ids.add(number)
        return entry


Drawing = tuple[Callable[[tuple[int, int]], NDArray[np.bool_]], object]
"""How a shape is drawn, and the polygons that it is drawn from, if it is."""


def _polygon(attributes: Attributes, limits: Limits) -> Drawing:
    polygons = [[float(value) for point in attributes["points"].split(";") for value in point.split(",")]]
    return partial(mask_of, polygons, limits=limits), polygons


def _box(attributes: Attributes, limits: Limits) -> Drawing:
    left, top, right, bottom = (float(attributes[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(float(attributes.get("rotation", 0)))
    if not angle:
        return partial(box_mask, (left, top, right, bottom)), None
    x, y, cos, sin = (left + right) / 2, (top + bottom) / 2, math.cos(angle), math.sin(angle)
    corners = [(left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)]
    polygons = [[value for a, b in corners for value in (x + a * cos - b * sin, y + a * sin + b * cos)]]
    return partial(mask_of, polygons, limits=limits), polygons


def _ellipse(attributes: Attributes, _: Limits) -> Drawing:
    if float(attributes.get("rotation", 0)):
        raise DataError("it is turned, which is not read. Draw a polygon.")
    x, y, across, down = (float(attributes[key]) for key in ("cx", "cy", "rx", "ry"))
    return partial(ellipse_mask, (x, y), (across, down)), None


def _mask(attributes: Attributes, limits: Limits) -> Drawing:
    left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
    text = attributes["rle"]
    if len(text) > limits.max_run_letters:
        raise DataError(f"its run lengths have {len(text):,} letters, over {limits.max_run_letters:,}.")
    return partial(_runs, text, (left, top), (height, width)), None


def _runs(text: str, corner: tuple[int, int], part: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a rectangle by rows with runs of outside and inside in turn."""
    if min(part) < 1 or part[0] > size[0] or part[1] > size[1]:
        raise DataError(f"its rectangle is {shown(part[0])} x {shown(part[1])}, and the image {size[0]} x {size[1]}.")
    try:
        runs = [int(run) for run in text.split(",")]
    except ValueError as error:
        raise DataError(f"its run lengths are not numbers: {shown(str(error))}.") from error
    if min(runs) < 0 or sum(runs) != math.prod(part):
        raise DataError(f"its run lengths do not cover its {part[0]} x {part[1]} pixels.")
    return placed(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(part), corner, size)


_SHAPES: Mapping[str, Callable[[Attributes, Limits], Drawing]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}
