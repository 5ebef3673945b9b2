"""Panoptic Narrative Grounding, in its published files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.coco_files import blank_masks, image_path, open_image
from vlm_adapters.data.formats.narratives import Narratives
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.limits import Limits, shown
from vlm_adapters.prompt import Phrase

_STRIP = 1_000_000
"""Pixels whose segments are looked at together: all of a large image would take much memory."""


@dataclass(frozen=True, kw_only=True)
class PngFiles:
    """The files and folders of the set.

    Attributes:
        narratives: The file `png_coco_val2017.json`, or that of train.
        panoptic: The file `panoptic_val2017.json`, of the same images.
        segments: The folder of its PNGs, in which the segment id of a pixel is `R + 256 G + 65536 B`.
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
        files: The files and folders of the set.
        access: How far they may reach.

    Raises:
        DataError: A file or folder is missing or malformed.
    """

    def __init__(self, files: PngFiles, access: Access = DEFAULT_ACCESS) -> None:
        self.access = access
        self._files = files
        self._segments = ImageFolder.existing(files.segments, access)
        self._images = ImageFolder.existing(files.images, access)
        self._content = Narratives.read(Path(files.narratives), Path(files.panoptic), self._images, self._segments)
        self.problems = self._content.problems

    @property
    @override
    def source(self) -> str:
        return format_uri("png", {key: os.fspath(path) for key, path in vars(self._files).items()})

    def __len__(self) -> int:
        return len(self._content.narratives)

    @override
    def annotation(self, index: int) -> Annotation:
        narrative = self._content.narratives[index]
        return Annotation(
            id=f"{narrative.image}/{narrative.entry}",
            image_id=str(narrative.image),
            text=narrative.text,
            phrases=tuple(
                Phrase(narrative.text[phrase.start : phrase.end], phrase.start, phrase.end)
                for phrase in narrative.phrases
            ),
            phrase_ids=tuple("+".join(map(str, phrase.segments)) for phrase in narrative.phrases),
            phrase_tags=tuple(phrase.tags for phrase in narrative.phrases),
        )

    @override
    def place(self, index: int) -> str:
        return f"{self._content.path}[{self._content.narratives[index].entry}]"

    @override
    def files(self) -> tuple[Path, ...]:
        return (Path(self._files.narratives), Path(self._files.panoptic))

    @override
    def image_file(self, index: int) -> Path:
        return image_path(self._images, self._content.panoptic.images, self._content.narratives[index].image)

    @override
    def mask_files(self, index: int) -> tuple[Path]:
        return (self._content.panoptic.segments_path(self._segments, self._content.narratives[index].image),)

    @override
    def sample(self, index: int) -> Sample:
        narrative = self._content.narratives[index]
        entry = self._content.panoptic.images[narrative.image]
        size = (entry.height, entry.width)
        masks = blank_masks(len(narrative.phrases), size, self.access.limits)
        image = open_image(self._images.check_inside(self.image_file(index)), size, self.access.limits)
        mask_file = self._segments.check_inside(*self.mask_files(index))
        painted: set[int] = set()
        for rows, segments in _segment_ids(mask_file, size, self.access.limits):
            painted.update(np.unique(segments).tolist())
            for mask, phrase in zip(masks, narrative.phrases, strict=True):
                mask[rows] = np.isin(segments, phrase.segments)
        for phrase in narrative.phrases:
            if missing := [segment for segment in phrase.segments if segment not in painted]:
                raise DataError(
                    f"The phrase {shown(narrative.text[phrase.start : phrase.end])} names segments {shown(missing)} "
                    f"that have no pixel in {mask_file}. {_remedy(painted)}"
                )
        return Sample(**vars(self.annotation(index)), image=image, masks=masks)


def _remedy(painted: set[int]) -> str:
    """What to do about segments that are not painted: some files hold colours of another meaning."""
    colours = [(segment % 256, segment // 256 % 256, segment // 65536) for segment in painted]
    if all(blue == 0 for _, _, blue in colours) or all(red == green == blue for red, green, blue in colours):
        return (
            "If it is a PNG of two channels (category and instance), convert it with panopticapi's "
            "2channels2panoptic_coco_format.py; else use files of one release."
        )
    return "Use files of one release."


def _segment_ids(path: Path, size: tuple[int, int], limits: Limits) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """Read the segment id of every pixel, in strips of rows, each with its place."""
    image = load_image(path, limits)
    if (image.height, image.width) != size:
        raise DataError(
            f"The segments {path} are {image.height} x {image.width}, and their image is {size[0]} x {size[1]} "
            "(height x width). Use files of one release."
        )
    height = max(1, _STRIP // image.width)
    for top in range(0, image.height, height):
        bottom = min(image.height, top + height)
        colours = np.asarray(image.crop((0, top, image.width, bottom)), dtype=np.uint32)
        yield slice(top, bottom), colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
