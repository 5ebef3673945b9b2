"""ReasonSeg, in its published form: a folder per split, with a JSON file beside every image.

```json
{"text": ["the one to sit on while reading"], "is_sentence": false,
 "shapes": [{"label": "target", "points": [[10.5, 20.0], [30.0, 20.0], [30.0, 40.0]]},
            {"label": "ignore", "points": [[12.0, 22.0], [15.0, 22.0], [15.0, 25.0]]}]}
```

As the evaluation published with it has it: points are cut to whole pixels, and larger polygons are painted before
smaller ones, whatever their labels. A label with `ignore` in it makes pixels that count neither as found nor as missed,
the label `flag` makes none, and any other label makes pixels of the target.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated as Checked
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access, ImageFolder
from vlm_adapters.data.dataset import Dataset, ProblemList
from vlm_adapters.data.documents import read_json, usable_text
from vlm_adapters.data.formats.coco_files import blank_masks
from vlm_adapters.data.formats.filled_polygons import fill_polygon, outline_steps
from vlm_adapters.data.formats.masks import FARTHEST
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.data.uri import format_uri
from vlm_adapters.data.validated import first_mistake
from vlm_adapters.errors import DataError
from vlm_adapters.images import load_image
from vlm_adapters.limits import Limits, shown
from vlm_adapters.prompt import Phrase

TextChoice = Literal["first", "all"]
"""Which texts of an image are read; the published evaluation takes the first."""

_Coordinate = Checked[float, Field(allow_inf_nan=False)]


class Shape(BaseModel):
    """A polygon, as it stands in a file."""

    model_config = ConfigDict(strict=True)

    label: str
    points: list[Checked[list[_Coordinate], Field(min_length=2, max_length=2)]] = Field(min_length=1)


class ReasonSegFile(BaseModel):
    """What a JSON file holds."""

    model_config = ConfigDict(strict=True)

    text: list[str] = Field(min_length=1)
    is_sentence: bool
    shapes: list[Shape]

    @classmethod
    def read(cls, path: Path, limits: Limits) -> ReasonSegFile:
        """Read a file; one that is not UTF-8 is read as cp1252, as the published reader does.

        Raises:
            DataError: It is missing, of another form, or beyond the limits.
        """
        content = read_json(path, replace(limits, max_file_bytes=limits.max_line_bytes), fallback="cp1252")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{path} is not an annotation of ReasonSeg: {first_mistake(error)}.") from None


class _Text(NamedTuple):
    """A text about an image; `entry` counts the texts of its file from 0."""

    name: str
    entry: int
    text: str
    is_sentence: bool


class ReasonSeg(Dataset):
    """A split of ReasonSeg. A sample's id is `"image/text"`; its text is its phrase.

    Tags are `long query` where the file says that its texts are sentences, otherwise `short query`.

    Args:
        path: The folder of the split, such as `ReasonSeg/val`.
        sentences: The `first` text of every image, as published, or `all`.
        access: How far the files may reach.

    Raises:
        DataError: There is no such folder, or it has no JSON file.
    """

    def __init__(
        self, path: str | os.PathLike[str], sentences: TextChoice = "first", access: Access = DEFAULT_ACCESS
    ) -> None:
        self.access = access
        self._folder = ImageFolder.existing(path, access)
        self._sentences = sentences
        names = sorted({file.stem for file in self._folder.path.iterdir() if file.suffix in (".json", ".jpg")})
        if not any((self._folder.path / f"{name}.json").is_file() for name in names):
            raise DataError(
                f"{self._folder.path} has no JSON file. Give the folder of a split, such as ReasonSeg/val, with a "
                ".json file beside every .jpg."
            )
        self._names: list[str] = []
        self._texts: list[_Text] = []
        problems = ProblemList(self._folder.path, access.limits.max_problems)
        for name in names:
            try:
                texts = self._texts_of(name)
            except DataError as error:
                problems.add(f"{self._json(name)}", str(error))
                continue
            self._names.append(name)
            self._texts += texts if sentences == "all" else texts[:1]
        self.problems = problems.as_tuple()

    @property
    @override
    def source(self) -> str:
        return format_uri("reasonseg", {"path": str(self._folder.path), "sentences": self._sentences})

    def __len__(self) -> int:
        return len(self._texts)

    @override
    def annotation(self, index: int) -> Annotation:
        name, entry, text, is_sentence = self._texts[index]
        return Annotation(
            id=f"{name}/{entry}",
            image_id=name,
            text=text,
            phrases=(Phrase.at(text, 0, len(text)),),
            phrase_ids=(f"{name}/{entry}",),
            phrase_tags=(("long query" if is_sentence else "short query",),),
        )

    @override
    def place(self, index: int) -> str:
        return f"{self._json(self._texts[index].name)}[{self._texts[index].entry}]"

    @override
    def files(self) -> tuple[Path, ...]:
        return tuple(map(self._json, self._names))

    @override
    def image_file(self, index: int) -> Path:
        return self._folder.path / f"{self._texts[index].name}.jpg"

    @override
    def sample(self, index: int) -> Sample:
        limits = self.access.limits
        shapes = ReasonSegFile.read(self._json(self._texts[index].name), limits).shapes
        image = load_image(self._folder.check_inside(self.image_file(index)), limits)
        target, ignored = painted(shapes, (image.height, image.width), limits)
        return Sample(**vars(self.annotation(index)), image=image, masks=target[None], ignored=ignored)

    def _json(self, name: str) -> Path:
        return self._folder.path / f"{name}.json"

    def _texts_of(self, name: str) -> list[_Text]:
        content = ReasonSegFile.read(self._json(name), self.access.limits)
        texts = [usable_text(text.strip(), self.access.limits) for text in content.text]
        if "" in texts:
            raise DataError(f"Text {texts.index('')} is blank. Remove it.")
        return [_Text(name, entry, text, content.is_sentence) for entry, text in enumerate(texts)]


def painted(
    shapes: list[Shape], size: tuple[int, int], limits: Limits
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Paint the polygons of an image, the larger ones first.

    Args:
        shapes: The polygons.
        size: `(H, W)` of the image.
        limits: Longest outline, and most pixels of all rectangles around polygons together.

    Returns:
        `(H, W)` masks of the target and of the pixels that are ignored; None where there are none of the latter.

    Raises:
        DataError: A polygon lies far outside, or together they are beyond the limits.
    """
    target, ignored = blank_masks(2, size, limits)
    drawn = _drawn([shape for shape in shapes if shape.label.lower() != "flag"], size, limits)
    areas = [int(mask.sum()) for _, _, mask in drawn]
    for number in np.argsort(areas, kind="stable")[::-1].tolist():
        label, place, mask = drawn[number]
        is_ignored = "ignore" in label.lower()
        target[place][mask], ignored[place][mask] = not is_ignored, is_ignored
    return target, ignored if ignored.any() else None


class _Drawn(NamedTuple):
    label: str
    place: tuple[slice, slice]
    mask: NDArray[np.bool_]


def _drawn(shapes: list[Shape], size: tuple[int, int], limits: Limits) -> list[_Drawn]:
    """Draw every polygon within the part of the image that its rectangle covers."""
    drawn: list[_Drawn] = []
    steps = pixels = 0
    for shape in shapes:
        if (farthest := max(abs(value) for point in shape.points for value in point)) > FARTHEST * max(size):
            raise DataError(
                f"A polygon of {shown(shape.label)} reaches {farthest:,.0f} pixels out of the image of {size[0]} x "
                f"{size[1]} (height x width). Fix it in the file."
            )
        points = np.array(shape.points).astype(np.int64)
        steps += outline_steps(points)
        corner = np.clip(points.min(axis=0), 0, None)
        end = np.clip(points.max(axis=0) + 1, corner, (size[1], size[0]))
        pixels += int(np.prod(end - corner))
        if steps > limits.max_outline or pixels > limits.max_mask_pixels:
            raise DataError(
                f"Its polygons are too large: outlines of over {limits.max_outline:,} pixels, or rectangles of over "
                f"{limits.max_mask_pixels:,}. Simplify them, or pass Limits(max_outline=..., max_mask_pixels=...) to "
                "open_dataset."
            )
        (left, top), (right, bottom) = corner.tolist(), end.tolist()
        mask = fill_polygon(points - corner, (bottom - top, right - left))
        drawn.append(_Drawn(shape.label, (slice(top, bottom), slice(left, right)), mask))
    return drawn
