"""The plain form of a data set: a folder with images and `samples.jsonl`, a JSON object per sample and line.

```json
{"id": "1", "image": "images/a.jpg", "image_id": "a", "text": "a dog on a sofa",
 "phrases": [{"span": [0, 5], "mask": {"size": [480, 640], "counts": "..."}, "id": "7", "tags": ["thing"]}]}
```

`image` is relative to the folder and stays in it, `span` counts characters of `text`, `mask` is COCO's compressed run
lengths on the upright image; `id` and `tags` of phrases may be left out, but then of all phrases of a sample.
Lines with the same `image_id` have the same `image`. A line may have `ignored`: such run lengths of the pixels that an
evaluation counts neither as found nor as missed.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import blank_masks
from vlm_adapters.data.formats.json_lines import JsonLines, Line
from vlm_adapters.data.rle import decode_rle
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.limits import Limits, shown
from vlm_adapters.prompt import Phrase

SAMPLES_FILE = "samples.jsonl"
"""The name of the file within the folder."""


class RunLengths(BaseModel):
    """A mask: COCO's compressed run lengths."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: tuple[int, int]
    counts: str


class PhraseLine(BaseModel):
    """A phrase of a sample, as it stands in a line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    span: tuple[int, int]
    mask: RunLengths
    id: str | None = None
    tags: tuple[str, ...] | None = None


class SampleLine(BaseModel):
    """A line: a sample without the pixels of its image."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1)
    image: str = Field(min_length=1)
    image_id: str = Field(min_length=1)
    text: str
    phrases: tuple[PhraseLine, ...] = Field(min_length=1)
    ignored: RunLengths | None = None

    def annotation(self) -> Annotation:
        """The line as an annotation.

        Raises:
            DataError: Some phrases have ids or tags and others do not.
            PhraseError: A span is outside the text, or blank.
        """
        for name in ("id", "tags"):
            if len({getattr(phrase, name) is None for phrase in self.phrases}) > 1:
                raise DataError(f"Some phrases have {name} and others do not. Give {name} to all, or to none.")
        return Annotation(
            id=self.id,
            image_id=self.image_id,
            text=self.text,
            phrases=tuple(Phrase.at(self.text, *phrase.span) for phrase in self.phrases),
            phrase_ids=tuple(phrase.id for phrase in self.phrases if phrase.id is not None),
            phrase_tags=tuple(phrase.tags for phrase in self.phrases if phrase.tags is not None),
        )


class Folder(Dataset):
    """A data set in the plain form. Opening it reads every line and no image.

    Args:
        path: The folder.
        access: How far it may reach.

    Raises:
        DataError: There is no `samples.jsonl` in the folder.
    """

    def __init__(self, path: str | os.PathLike[str], access: Access = DEFAULT_ACCESS) -> None:
        self.access = access
        self._folder = ImageFolder(Path(path), access)
        self._file = Path(path) / SAMPLES_FILE
        self._lines = JsonLines(self._file, SampleLine, access.limits)
        ids: dict[str, int] = {}
        images: dict[str, tuple[int, str]] = {}

        def check(place: Line, line: SampleLine) -> None:
            usable_text(line.text, access.limits)
            line.annotation()
            try:
                path = self._folder.named(line.image)
            except DataError as error:
                raise DataError(f"image: {error}") from error
            blank_masks(len(line.phrases), (1, 1), access.limits)
            if (first := ids.setdefault(line.id, place.number)) != place.number:
                raise DataError(f"id: {shown(line.id)} is already the id of line {first}. Give every line its own id.")
            first, image = images.setdefault(line.image_id, (place.number, line.image))
            if image != line.image and self._folder.named(image) != path:
                raise DataError(
                    f"image_id: {shown(line.image_id)} names the image {shown(image)} in line {first}, and "
                    f"{shown(line.image)} here. Give different images different ids."
                )

        self._samples, self.problems = self._lines.usable(check)

    @property
    @override
    def source(self) -> str:
        return format_uri("folder", {"path": str(self._folder.path)})

    def __len__(self) -> int:
        return len(self._samples)

    @override
    def annotation(self, index: int) -> Annotation:
        return self._lines.read(self._samples[index]).annotation()

    @override
    def place(self, index: int) -> str:
        return self._lines.place(self._samples[index])

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._file,)

    @override
    def image_file(self, index: int) -> Path:
        return self._folder.named(self._lines.read(self._samples[index]).image)

    @override
    def sample(self, index: int) -> Sample:
        line = self._lines.read(self._samples[index])
        annotation = line.annotation()
        image = load_image(self._folder.check_inside(self._folder.named(line.image)), self.access.limits)
        masks = blank_masks(len(line.phrases), (image.height, image.width), self.access.limits)
        for mask, phrase, entry in zip(masks, annotation.phrases, line.phrases, strict=True):
            mask[:] = _mask(f"The mask of {shown(phrase.text)}", entry.mask, image, self.access.limits)
        ignored = None if line.ignored is None else _mask("ignored", line.ignored, image, self.access.limits)
        return Sample(**vars(annotation), image=image, masks=masks, ignored=ignored)


def _mask(what: str, mask: RunLengths, image: Image.Image, limits: Limits) -> NDArray[np.bool_]:
    height, width = mask.size
    if (height, width) != (image.height, image.width):
        raise DataError(
            f"{what} is {shown(height)} x {shown(width)}, and the image is {image.height} x {image.width} (height x "
            "width). Give masks of the upright image."
        )
    try:
        return decode_rle(mask.model_dump(), limits)
    except DataError as error:
        raise DataError(f"{what} is broken: {error}") from error
