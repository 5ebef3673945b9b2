"""A folder of masks: `images/NAME.jpg`, and `masks/NAME/LABEL.png` for everything that is labelled in it.

The name of a mask's file is its phrase: `masks/0001/a brown dog.png`. A mask is as large as its upright image, and its
pixels that are neither black nor transparent are inside. Images without a folder of masks are left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import ProblemList
from vlm_adapters.data.formats.coco_files import blank_masks
from vlm_adapters.data.formats.labelled import LabelledImage, LabelledImages, usable_labels
from vlm_adapters.data.formats.mask_entry import MaskEntry
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError


class MaskFolder(LabelledImages):
    """A folder of masks. A sample's id is the name of its image, without the ending.

    Args:
        path: The folder with `images` and `masks`.
        access: How far links may lead.

    Raises:
        DataError: There is no such folder, or it has no folder `images` or `masks`.
    """

    def __init__(self, path: str | os.PathLike[str], access: Access = DEFAULT_ACCESS) -> None:
        super().__init__(ImageFolder.existing(path, access), found := [])
        images, masks = (ImageFolder.existing(Path(path, name), access).path for name in ("images", "masks"))
        by_name: dict[str, list[Path]] = {}
        for file in sorted(images.iterdir()):
            by_name.setdefault(file.stem, []).append(file)
        problems = ProblemList(masks, access.limits.max_problems)
        for folder in sorted(masks.iterdir()):
            try:
                found.append(_entry(folder, by_name.get(folder.name, []), access))
            except DataError as error:
                problems.add(str(folder), str(error))
        self.problems = problems.as_tuple()

    @property
    @override
    def source(self) -> str:
        return format_uri("masks", {"path": str(self._folder.path)})

    @override
    def mask_files(self, index: int) -> tuple[Path, ...]:
        return tuple(Path(self.place(index), f"{label}.png") for label in self._images[index].labels)

    @override
    def masks(self, index: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        masks = blank_masks(len(self._images[index].labels), size, self.access.limits)
        for mask, file in zip(masks, self.mask_files(index), strict=True):
            mask[:] = MaskEntry(png=file.relative_to(self._folder.path).as_posix()).decoded(size, self._folder)
        return masks


def _entry(folder: Path, images: list[Path], access: Access) -> LabelledImage:
    if not folder.is_dir():
        raise DataError("It is not a folder. Masks are masks/NAME/LABEL.png, for the image images/NAME.jpg.")
    files = sorted(folder.iterdir())
    if others := [file.name for file in files if file.suffix != ".png"]:
        raise DataError(f"It holds {others[0]}, which is not a .png file. Give every label a PNG, and nothing else.")
    if len(images) != 1:
        names = ", ".join(image.name for image in images[:3]) or "none"
        raise DataError(f"It needs one image of its name in {folder.parent.parent / 'images'}, found: {names}.")
    labels = usable_labels((file.stem for file in files), access.limits)
    return LabelledImage(folder.name, images[0], labels, str(folder))
