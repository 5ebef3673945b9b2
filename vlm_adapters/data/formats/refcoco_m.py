"""RefCOCO-M, in its published form: parquet files with a row per image, and its targets with their sentences."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated as Checked
from typing import Any, NamedTuple

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import ProblemList
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import blank_masks
from vlm_adapters.data.formats.masks import mask_of
from vlm_adapters.data.formats.parquet import ParquetRows
from vlm_adapters.data.formats.referring import (
    DEFAULT_POLICY,
    Ref,
    ReferringExpressions,
    Sentence,
    SentencePolicy,
)
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.errors import DataError, ImageError
from vlm_adapters.images import load_image
from vlm_adapters.limits import Limits

_MOST_FILES = 1_000


class Mask(BaseModel):
    """A mask, as it stands in a row: COCO's compressed run lengths."""

    model_config = ConfigDict(strict=True)

    counts: str
    size: Checked[list[int], Field(min_length=2, max_length=2)]


class Target(BaseModel):
    """A target, as it stands in a row."""

    model_config = ConfigDict(strict=True)

    id: int
    sentences: list[str] = Field(min_length=1)
    mask: Mask


class Row(BaseModel):
    """A row without the bytes of its image."""

    model_config = ConfigDict(strict=True)

    image_id: int
    samples: list[Target] = Field(min_length=1)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Row:
        """Check a row.

        Raises:
            DataError: It is of another form.
        """
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            raise DataError(f"It is not a row of RefCOCO-M: {first_mistake(error)}. Download the file again.") from None


class _Place(NamedTuple):
    rows: ParquetRows
    row: int

    def __str__(self) -> str:
        return f"{self.rows.path}[{self.row}]"


class RefCocoM(ReferringExpressions):
    """RefCOCO-M: RefCOCO's validation images with new masks. Phrase ids are `"id/sentence"`, sentences from 0.

    Args:
        path: Folder with the parquet files, or with a folder `data` of them.
        policy: How the sentences of targets become samples.
        access: How far the files may reach.

    Raises:
        DataError: There is no such folder or file, pyarrow is not installed, or a file is malformed.
    """

    def __init__(
        self, path: str | os.PathLike[str], policy: SentencePolicy = DEFAULT_POLICY, access: Access = DEFAULT_ACCESS
    ) -> None:
        self.access = access
        self._path = ImageFolder.existing(path, access).path
        self._files = _parquet_files(self._path)
        self._places: list[_Place] = []
        self._last: tuple[_Place, dict[str, Any]] | None = None
        refs: list[Ref] = []
        problems = ProblemList(self._path, access.limits.max_problems)
        ids = _SeenIds()
        for file in self._files:
            rows = ParquetRows(file, ("image", "image_id", "samples"), access.limits)
            for number, content in enumerate(rows.read(("image_id", "samples"))):
                place = _Place(rows, number)
                try:
                    found = _refs(Row.of(content), len(self._places), access.limits)
                    ids.check(found, place)
                except DataError as error:
                    problems.add(str(place), str(error))
                    continue
                refs += found
                self._places.append(place)
        self.problems = problems.as_tuple()
        super().__init__(refs, policy)

    @property
    @override
    def source(self) -> str:
        return format_uri("refcoco_m", {"path": str(self._path), **self._policy.keys()})

    @override
    def tags(self, ref: Ref) -> tuple[str, ...]:
        return ()

    @override
    def place(self, index: int) -> str:
        return str(self._place_of(index))

    @override
    def files(self) -> tuple[Path, ...]:
        return self._files

    @override
    def sample(self, index: int) -> Sample:
        limits = self.access.limits
        place = self._place_of(index)
        content = self._row(place)
        targets = {target.id: target for target in Row.of(content).samples}
        image = _image(content["image"], place, limits)
        size = (image.height, image.width)
        refs = self.refs_of(index)
        masks = blank_masks(len(refs), size, limits)
        for mask, ref in zip(masks, refs, strict=True):
            try:
                mask[:] = mask_of(targets[ref.id].mask.model_dump(), size, limits)
            except KeyError:
                raise DataError(f"{place} has changed since it was opened. Open the set again.") from None
            except DataError as error:
                raise DataError(f"The mask of sample {ref.id} is broken: {error}") from error
        return Sample(**vars(self.annotation(index)), image=image, masks=masks)

    def _place_of(self, index: int) -> _Place:
        return self._places[self.refs_of(index)[0].entry]

    def _row(self, place: _Place) -> dict[str, Any]:
        """Read a row, or take the last one again: most rows have several sentences, one after another."""
        last = self._last
        if last is None or last[0] != place:
            last = self._last = (place, place.rows.row(place.row, ("image", "image_id", "samples")))
        return last[1]


class _SeenIds:
    """The ids of images and targets, with the rows that had them first."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], _Place] = {}

    def check(self, refs: list[Ref], place: _Place) -> None:
        for name, number in [("image_id", refs[0].image), *(("id", ref.id) for ref in refs)]:
            if (name, number) in self._found:
                raise DataError(
                    f"Its {name} {number} is already that of {self._found[name, number]}. Give every one its own."
                )
            self._found[name, number] = place


def _parquet_files(folder: Path) -> tuple[Path, ...]:
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    if not 0 < len(files) <= _MOST_FILES:
        raise DataError(
            f"{folder} has {len(files)} parquet files, and RefCOCO-M has two, validation-*.parquet. Give the folder "
            "that they are in."
        )
    return tuple(files)


def _refs(row: Row, entry: int, limits: Limits) -> list[Ref]:
    """The targets of a row as refs; `entry` is the number of the row among those that can be used."""
    refs = []
    for target in row.samples:
        texts = [usable_text(text.strip(), limits) for text in target.sentences]
        if "" in texts:
            raise DataError(f"Sentence {texts.index('')} of sample {target.id} is blank. Remove it.")
        sentences = tuple(Sentence(number, text) for number, text in enumerate(texts))
        refs.append(Ref(target.id, (target.id,), row.image_id, entry, sentences))
    return refs


def _image(content: Any, place: _Place, limits: Limits) -> Image.Image:
    """Decode the image of a row, whose file is within the parquet file."""
    found = content.get("bytes") if isinstance(content, dict) else None
    if not isinstance(found, bytes):
        raise DataError(f"{place} has no bytes of an image. Give the published files, which hold their images.")
    try:
        return load_image(found, limits)
    except ImageError as error:
        raise ImageError(f"{place}: {error}") from error
