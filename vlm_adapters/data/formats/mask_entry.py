"""A mask as a person writes it: a PNG file, polygons, a box, or COCO's run lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_adapters.data.access import ImageFolder
from vlm_adapters.data.formats.drawn_shapes import box_mask
from vlm_adapters.data.formats.mask_png import check_mask_size, read_mask_png
from vlm_adapters.data.formats.masks import mask_of, outline_length
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits, shown
from vlm_adapters.reading import read_at_most

_FORMS = ("png", "polygons", "box", "counts")


class MaskEntry(BaseModel):
    """A mask of the upright image, in one of four forms.

    Attributes:
        png: A PNG file within the folder; pixels that are neither black nor transparent are inside.
        polygons: Outlines `[x, y, x, y, ...]` in pixels, drawn as COCO draws them; their union is the mask.
        box: `[x0, y0, x1, y1]` in pixels, filled; x1 and y1 are the first column and row outside.
        size: Height and width of the image, beside `counts`.
        counts: COCO's run lengths: compressed as a string, or uncompressed as a list of numbers.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    png: str | None = Field(default=None, min_length=1)
    polygons: list[list[float]] | None = Field(default=None, min_length=1)
    box: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    counts: str | list[int] | None = None

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        given = [name for name in _FORMS if getattr(self, name) is not None]
        if len(given) != 1 or (self.size is None) != (self.counts is None):
            raise ValueError("give one of png, polygons, box, or size and counts together")
        return self

    def file(self, folder: ImageFolder) -> Path | None:
        """The path of the PNG file; None for the other forms. Whether a link leads out is not looked at.

        Raises:
            DataError: Its name leads out of the folder.
        """
        return None if self.png is None else folder.named(self.png)

    @property
    def outline(self) -> float:
        """The length in pixels of the outline of polygons that have been drawn; 0 for the other forms."""
        return outline_length(self.polygons)

    def decoded(self, size: tuple[int, int], folder: ImageFolder) -> NDArray[np.bool_]:
        """Draw, decode or read the mask `(H, W)`.

        Args:
            size: `(H, W)` of the image.
            folder: The folder of the set, in which a PNG file stays.

        Raises:
            DataError: It is broken, of another size, or beyond the limits. The message begins with what is wrong.
        """
        limits = folder.access.limits
        if self.box is not None:
            return box_mask(self.box, size)
        if self.polygons is not None:
            return mask_of(self.polygons, size, limits)
        if (file := self.file(folder)) is not None:
            return _read(folder.check_inside(file), size, limits)
        check_mask_size(self.size or (0, 0), size)
        return mask_of({"size": list(size), "counts": self.counts}, size, limits)


def _read(path: Path, size: tuple[int, int], limits: Limits) -> NDArray[np.bool_]:
    try:
        content = read_at_most(path, limits.max_file_bytes)
    except OSError as error:
        raise DataError(f"the file {shown(str(path), 200)} cannot be read: {error.strerror or error}.") from error
    try:
        return read_mask_png(content, size)
    except DataError as error:
        raise DataError(f"{shown(str(path), 200)}: {error}") from error
