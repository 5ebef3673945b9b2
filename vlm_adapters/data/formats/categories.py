"""An instances file of COCO, as CVAT and others export it: every category of an image is a phrase.

The mask of a category is the union of its annotations. Images without an annotation are left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import ProblemList
from vlm_adapters.data.documents import read_json
from vlm_adapters.data.formats.by_id import ById, identity
from vlm_adapters.data.formats.coco_files import Instances, entries, image_path
from vlm_adapters.data.formats.labelled import LabelledImage, LabelledImages, usable_labels
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown


class CocoCategories(LabelledImages):
    """The categories of an instances file as phrases. A sample's id is that of its image.

    Args:
        annotations: The instances file.
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
        super().__init__(ImageFolder.existing(images, access), found := [])
        path = Path(annotations)
        content = read_json(path, access.limits)
        self._instances = Instances.of(path, content, access.limits)
        names = ById(path, "categories", entries(path, content, "categories"), _name)
        self._groups: list[list[list[int]]] = []
        problems = ProblemList(path, access.limits.max_problems)
        for image, numbers in _by_image(path, entries(path, content, "annotations"), problems).items():
            try:
                entry, groups = self._entry(image, numbers, names)
            except DataError as error:
                problems.add(f"{path} image {image}", str(error))
                continue
            found.append(entry)
            self._groups.append(groups)
        self.problems = problems.as_tuple()

    @property
    @override
    def source(self) -> str:
        return format_uri("coco", {"annotations": str(self._instances.path), "images": str(self._folder.path)})

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._instances.path,)

    @override
    def masks(self, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        return self._instances.masks(self._groups[index], size)

    def _entry(
        self, image: int, numbers: Mapping[int, list[int]], names: ById[str]
    ) -> tuple[LabelledImage, list[list[int]]]:
        groups: dict[str, list[int]] = {}
        for category, found in numbers.items():
            groups.setdefault(names[category], []).extend(found)
            for number in found:
                self._instances.annotations[number]  # an unusable one is an error
        labels = usable_labels(groups, self.access.limits)
        header = self._instances.images[image]
        path = self._instances.path
        file = image_path(self._folder, self._instances.images, image)
        entry = LabelledImage(str(image), file, labels, f"{path} image {image}", (header.height, header.width))
        return entry, list(groups.values())


def _name(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"The category {shown(entry['id'])} has no name. Fix it in the file.")
    return name.strip()


def _by_image(path: Path, found: list[object], problems: ProblemList) -> dict[int, dict[int, list[int]]]:
    """The ids of annotations, by the ids of their image and category."""
    images: dict[int, dict[int, list[int]]] = {}
    for index, entry in enumerate(found):
        try:
            image, category, number = (_identity(entry, key) for key in ("image_id", "category_id", "id"))
        except DataError as error:
            problems.add(f"{path} annotations[{index}]", str(error))
            continue
        images.setdefault(image, {}).setdefault(category, []).append(number)
    return images


def _identity(entry: object, key: str) -> int:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"It has no {key}. Fix it in the file.")
    return identity(entry[key])
