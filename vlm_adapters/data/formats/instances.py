"""Masks of an instances file of COCO, with your own captions: a JSON object per caption and line.

```json
{"image_id": 1, "text": "a dog on a sofa", "phrases": [{"text": "a dog", "annotations": [12, 13]},
                                                       {"span": [9, 15], "annotations": [14], "tags": ["furniture"]}]}
```

A phrase is given by its words, which occur once in the text, or by its span of characters; its mask is the union of its
annotations. `tags` may be left out, but then of all phrases of a caption.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import Instances, blank_masks, image_path, open_image
from vlm_adapters.data.formats.json_lines import JsonLines, Line
from vlm_adapters.data.formats.phrase_entry import PhraseEntry
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown


class CaptionPhrase(PhraseEntry):
    """A phrase of a caption, as it stands in a line."""

    annotations: tuple[int, ...] = Field(min_length=1)


class Caption(BaseModel):
    """A line: a caption of an image."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image_id: int
    text: str
    phrases: tuple[CaptionPhrase, ...] = Field(min_length=1)


class CaptionedInstances(Dataset):
    """Your own captions for COCO's masks.

    A sample's id is `"image/line"`. Phrase ids are annotation ids, joined by `+`.

    Args:
        annotations: The instances file.
        captions: The JSONL file, as described at the top of this module.
        images: The folder of the images.
        access: How far it may reach.

    Raises:
        DataError: A file or folder is missing, or the instances file is malformed.
    """

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        captions: str | os.PathLike[str],
        images: str | os.PathLike[str],
        access: Access = DEFAULT_ACCESS,
    ) -> None:
        self.access = access
        self._images = ImageFolder.existing(images, access)
        self._instances = Instances.read(Path(annotations), access)
        self._lines = JsonLines(captions, Caption, access.limits)
        self._samples, self.problems = self._lines.usable(self._check)

    @property
    @override
    def source(self) -> str:
        return format_uri(
            "instances",
            {
                "annotations": str(self._instances.path),
                "captions": str(self._lines.path),
                "images": str(self._images.path),
            },
        )

    def __len__(self) -> int:
        return len(self._samples)

    @override
    def annotation(self, index: int) -> Annotation:
        line = self._samples[index]
        return self._annotation(line, self._lines.read(line))

    @override
    def place(self, index: int) -> str:
        return self._lines.place(self._samples[index])

    @override
    def files(self) -> tuple[Path, ...]:
        return (self._instances.path, self._lines.path)

    @override
    def image_file(self, index: int) -> Path:
        return self._file(self._lines.read(self._samples[index]))

    @override
    def sample(self, index: int) -> Sample:
        line = self._samples[index]
        caption = self._lines.read(line)
        entry = self._instances.images[caption.image_id]
        size = (entry.height, entry.width)
        image = open_image(self._images.check_inside(self._file(caption)), size, self.access.limits)
        masks = self._instances.masks([phrase.annotations for phrase in caption.phrases], size)
        return Sample(**vars(self._annotation(line, caption)), image=image, masks=masks)

    def _file(self, caption: Caption) -> Path:
        return image_path(self._images, self._instances.images, caption.image_id)

    def _annotation(self, line: Line, caption: Caption) -> Annotation:
        return Annotation(
            id=f"{caption.image_id}/{line.number}",
            image_id=str(caption.image_id),
            text=caption.text,
            phrases=tuple(phrase.within(caption.text) for phrase in caption.phrases),
            phrase_ids=tuple("+".join(map(str, phrase.annotations)) for phrase in caption.phrases),
            phrase_tags=tuple(phrase.tags for phrase in caption.phrases if phrase.tags is not None),
        )

    def _check(self, line: Line, caption: Caption) -> None:
        if caption.image_id not in self._instances.images:
            raise DataError(f"image_id: the image {shown(caption.image_id)} is not in {self._instances.path}.")
        self._file(caption)
        blank_masks(len(caption.phrases), (1, 1), self.access.limits)
        usable_text(caption.text, self.access.limits)
        for number in (number for phrase in caption.phrases for number in phrase.annotations):
            if number not in self._instances.annotations:
                raise DataError(f"annotations: the annotation {shown(number)} is not in {self._instances.path}.")
            annotation = self._instances.annotations[number]
            if annotation.image != caption.image_id:
                raise DataError(
                    f"annotations: {number} belongs to image {annotation.image} in {self._instances.path}, and "
                    f"image_id is {caption.image_id}."
                )
        self._annotation(line, caption)
