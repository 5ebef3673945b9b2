"""Panoptic Narrative Grounding as published."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.coco_files import folder_of, open_image
from vlm_adapters.data.formats.narratives import Narratives
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import write_named
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.prompt import Phrase


@dataclass(frozen=True, kw_only=True)
class PngFiles:
    """Where the set lies.

    Attributes:
        narratives: The file `png_coco_val2017.json`, or that of train.
        panoptic: The file `panoptic_val2017.json`, of the same images.
        segments: The folder of its PNGs, in which the id of a pixel's segment is `R + 256 G + 65536 B`.
        images: The folder of the images.
    """

    narratives: str | os.PathLike[str]
    panoptic: str | os.PathLike[str]
    segments: str | os.PathLike[str]
    images: str | os.PathLike[str]


class Png(Dataset):
    """Narratives about images; an utterance that names segments is a phrase, its mask their union.

    A sample's id is `"image/entry"`. Phrase ids are segment ids, joined by `+`. Tags are `thing` or `stuff` (every
    plural counts as thing), and `singular` or `plural`.

    Args:
        files: Where the set lies.

    Raises:
        DataError: A file or folder is missing or malformed.
    """

    def __init__(self, files: PngFiles) -> None:
        self._files = files
        self._segments, self._images = folder_of(files.segments), folder_of(files.images)
        self._read = Narratives.read(Path(files.narratives), Path(files.panoptic))
        self.problems = self._read.problems

    @property
    def source(self) -> str:
        """See `Dataset`."""
        return write_named("png", {key: os.fspath(path) for key, path in vars(self._files).items()})

    def __len__(self) -> int:
        return len(self._read.narratives)

    def annotation(self, index: int) -> Annotation:
        """See `Dataset`."""
        narrative = self._read.narratives[index]
        return Annotation(
            id=f"{narrative.image}/{narrative.entry}",
            image_id=str(narrative.image),
            text=narrative.text,
            phrases=tuple(
                Phrase(narrative.text[said.start : said.end], said.start, said.end) for said in narrative.phrases
            ),
            phrase_ids=tuple("+".join(map(str, said.segments)) for said in narrative.phrases),
            phrase_tags=tuple(said.tags for said in narrative.phrases),
        )

    def place(self, index: int) -> str:
        """See `Dataset`."""
        return f"{self._read.path}[{self._read.narratives[index].entry}]"

    def files(self) -> tuple[Path, ...]:
        """See `Dataset`."""
        return (Path(self._files.narratives), Path(self._files.panoptic))

    def image_file(self, index: int) -> Path:
        """See `Dataset`."""
        return self._images / self._read.panoptic[self._read.narratives[index].image].image.file_name

    def mask_file(self, index: int) -> Path:
        """See `Dataset`."""
        return self._segments / self._read.panoptic[self._read.narratives[index].image].file_name

    def sample(self, index: int) -> Sample:
        """See `Dataset`."""
        narrative = self._read.narratives[index]
        entry, mask_file = self._read.panoptic[narrative.image].image, self.mask_file(index)
        size = (entry.height, entry.width)
        image = open_image(self.image_file(index), size)
        segments = _segment_ids(mask_file, size)
        masks = np.stack([np.isin(segments, said.segments) for said in narrative.phrases])
        there = set(np.unique(segments).tolist())
        for said in narrative.phrases:
            if missing := [segment for segment in said.segments if segment not in there]:
                raise DataError(
                    f"The phrase {narrative.text[said.start : said.end]!r} names segments {missing} that have no pixel "
                    f"in {mask_file}. Use files of one release."
                )
        return Sample(**vars(self.annotation(index)), image=image, masks=masks)


def _segment_ids(path: Path, size: tuple[int, int]) -> NDArray[np.uint32]:
    """The id of every pixel's segment, `(H, W)`."""
    colours = np.asarray(load_image(path), dtype=np.uint32)
    if colours.shape[:2] != size:
        raise DataError(
            f"The segments {path} are {colours.shape[0]} x {colours.shape[1]}, and their image is {size[0]} x "
            f"{size[1]} (height x width). Use files of one release."
        )
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
