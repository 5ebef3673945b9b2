"""The plain form of a data set: a folder with images and `samples.jsonl`, a JSON object per sample and line.

```json
{"id": "1", "image": "images/a.jpg", "text": "a dog on a sofa",
 "phrases": [{"text": "a dog", "mask": {"png": "masks/dog.png"}},
             {"text": "a sofa", "mask": {"box": [10, 120, 400, 380]}}]}
```

`image` is relative to the folder and stays in it. A phrase is given by its words, which occur once in the text, or by
its `span` of characters; `vlm_adapters.data.formats.mask_entry` describes its mask. `id` and `tags` of phrases may be
left out, but then of all phrases of a sample. `image_id` is the name of the image where it is left out; lines with the
same one have the same `image`. A line may have `ignored`: a mask of the pixels that an evaluation counts neither as
found nor as missed.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import blank_masks, check_outline
from vlm_adapters.data.formats.json_lines import JsonLines, Line
from vlm_adapters.data.formats.mask_entry import MaskEntry
from vlm_adapters.data.formats.phrase_entry import PhraseEntry
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.limits import shown

SAMPLES_FILE = "samples.jsonl"
"""The name of the file within the folder."""


class PhraseLine(PhraseEntry):
    """A phrase of a sample, as it stands in a line."""

    mask: MaskEntry
    id: str | None = None


class SampleLine(BaseModel):
    """A line: a sample without the pixels of its image."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1)
    image: str = Field(min_length=1)
    image_id: str | None = Field(default=None, min_length=1)
    text: str
    phrases: tuple[PhraseLine, ...] = Field(min_length=1)
    ignored: MaskEntry | None = None

    def masks(self) -> tuple[tuple[str, MaskEntry], ...]:
        """The masks of the phrases and then that of `ignored`, each with the words for it in a message."""
        ignored = () if self.ignored is None else (("ignored", self.ignored),)
        names = (f"The mask of {shown(phrase.text)}" for phrase in self.annotation().phrases)
        return (*zip(names, (phrase.mask for phrase in self.phrases), strict=True), *ignored)

    def annotation(self) -> Annotation:
        """The line as an annotation.

        Raises:
            DataError: Some phrases have ids or tags and others do not.
            PhraseError: A span is outside the text, or blank; words are not in it, or more than once.
        """
        for name in ("id", "tags"):
            if len({getattr(phrase, name) is None for phrase in self.phrases}) > 1:
                raise DataError(f"Some phrases have {name} and others do not. Give {name} to all, or to none.")
        return Annotation(
            id=self.id,
            image_id=self.image_id or self.image,
            text=self.text,
            phrases=tuple(phrase.within(self.text) for phrase in self.phrases),
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
            try:
                path = self._folder.named(line.image)
            except DataError as error:
                raise DataError(f"image: {error}") from error
            for what, mask in line.masks():
                try:
                    mask.file(self._folder)
                except DataError as error:
                    raise DataError(f"{what}: {error}") from error
            blank_masks(len(line.phrases), (1, 1), access.limits)
            if (first := ids.setdefault(line.id, place.number)) != place.number:
                raise DataError(f"id: {shown(line.id)} is already the id of line {first}. Give every line its own id.")
            image_id = line.image_id or line.image
            first, image = images.setdefault(image_id, (place.number, line.image))
            if image != line.image and self._folder.named(image) != path:
                raise DataError(
                    f"image_id: {shown(image_id)} names the image {shown(image)} in line {first}, and "
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
    def mask_files(self, index: int) -> tuple[Path, ...]:
        masks = self._lines.read(self._samples[index]).masks()
        return tuple(file for _, mask in masks if (file := mask.file(self._folder)) is not None)

    @override
    def sample(self, index: int) -> Sample:
        line = self._lines.read(self._samples[index])
        annotation, ignored = line.annotation(), None
        image = load_image(self._folder.check_inside(self._folder.named(line.image)), self.access.limits)
        size = (image.height, image.width)
        masks = blank_masks(len(line.phrases), size, self.access.limits)
        outline = 0.0
        for number, (what, entry) in enumerate(line.masks()):
            try:
                decoded = entry.decoded(size, self._folder)
            except DataError as error:
                raise DataError(f"{what} is broken: {error}") from error
            outline += entry.outline
            check_outline(outline, self.access.limits)
            if number < len(masks):
                masks[number] = decoded
            else:
                ignored = decoded
        return Sample(**vars(annotation), image=image, masks=masks, ignored=ignored)
