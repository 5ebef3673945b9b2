"""One record per phrase: the masks found, and how well they agree with the truth. All numbers come from records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.files import whole_file
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.sealed import sealed, unsealed
from vlm_adapters.errors import OutputError
from vlm_adapters.evaluation.metrics import boundary_f_score, box_iou
from vlm_adapters.prompt import Prompt


@dataclass(frozen=True)
class Agreement:
    """How well one mask agrees with the truth, outside the pixels that the sample says to ignore.

    Attributes:
        area: Number of pixels of the mask.
        intersection: Number of pixels that it shares with the true mask.
        union: Number of pixels in either mask.
        box_iou: IoU of the boxes around the masks.
        boundary_f: Boundary F-score at a tolerance of 2 pixels.
        counts: The mask, as it was found, as COCO's compressed run-length encoding at the image's size.
    """

    area: int
    intersection: int
    union: int
    box_iou: float
    boundary_f: float
    counts: str = field(repr=False)

    @classmethod
    def of(cls, found: NDArray[np.bool_], truth: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None) -> Self:
        """Compare two masks `(H, W)` bool; pixels of `ignored` are taken out of both."""
        counts = str(encode_rle(found)["counts"])
        if ignored is not None:
            found, truth = found & ~ignored, truth & ~ignored
        return cls(
            area=int(found.sum()),
            intersection=int((found & truth).sum()),
            union=int((found | truth).sum()),
            box_iou=box_iou(found, truth),
            boundary_f=boundary_f_score(found, truth),
            counts=counts,
        )

    @property
    def iou(self) -> float:
        """Intersection over union, in [0, 1]; 1 where both masks are empty."""
        return self.intersection / self.union if self.union else 1.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """One phrase of one sample.

    Attributes:
        index: Index of the sample in its data set.
        sample: Id of the sample.
        image: Id of the image.
        phrase: Index of the phrase in the sample.
        phrase_id: Id of the phrase's object in the source; None where it has none.
        words: Text of the phrase.
        prompt: Text that the model was given.
        span: Where the phrase is in that text: its first character, and the one after its last.
        tags: Tags that metrics are reported by.
        size: `(H, W)` of the image.
        true_area: Number of pixels of the true mask, without those that the sample says to ignore.
        found: The masks by name: `coarse` and `refined` of a decoder with a refiner, otherwise `mask`, or whatever
            names a grounder gives to its masks; the last is the best.
    """

    index: int
    sample: str
    image: str
    phrase: int
    phrase_id: str | None
    words: str
    prompt: str = field(repr=False)
    span: tuple[int, int]
    tags: tuple[str, ...]
    size: tuple[int, int]
    true_area: int
    found: Mapping[str, Agreement]

    @property
    def final(self) -> Agreement:
        """The last and best of the masks: the refined one where there is one."""
        return list(self.found.values())[-1]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` and JSON made of a record."""
        tuples = {name: tuple(content[name]) for name in ("span", "tags", "size")}
        found = {name: Agreement(**agreement) for name, agreement in content["found"].items()}
        return cls(**{**content, **tuples, "found": found})


def records_of(
    index: int, sample: Sample, prompts: Sequence[Prompt], found: Mapping[str, NDArray[np.bool_]]
) -> list[Record]:
    """Compare the masks that were found for a sample with the truth.

    Args:
        index: Index of the sample in its data set.
        sample: The sample with its true masks.
        prompts: Prompts that were asked; their phrases, one prompt after the other, are those of the sample.
        found: Masks `(P, H, W)` bool by name.

    Returns:
        A record per phrase.
    """
    asked = [(prompt.text, phrase) for prompt in prompts for phrase in prompt.phrases]
    truth = sample.masks if sample.ignored is None else sample.masks & ~sample.ignored
    return [
        Record(
            index=index,
            sample=sample.id,
            image=sample.image_id,
            phrase=number,
            phrase_id=sample.phrase_ids[number] if sample.phrase_ids else None,
            words=phrase.text,
            prompt=text,
            span=phrase.span,
            tags=sample.phrase_tags[number] if sample.phrase_tags else (),
            size=(sample.image.height, sample.image.width),
            true_area=int(truth[number].sum()),
            found={name: Agreement.of(masks[number], truth[number], sample.ignored) for name, masks in found.items()},
        )
        for number, (text, phrase) in enumerate(asked)
    ]


def records_bytes(records: Iterable[Record]) -> bytes:
    """Records as a file holds them: one JSON object per line, each ending with its digest."""
    return b"".join(sealed(asdict(record)) for record in records)


def write_records(records: Iterable[Record], path: str | os.PathLike[str]) -> None:
    """Write records to a file, one JSON object per line."""
    with whole_file(path) as temporary:
        temporary.write_bytes(records_bytes(records))


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Read records from a file that `write_records` wrote.

    Raises:
        OutputError: A line is not what was written.
    """
    records = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(Record.from_json(unsealed(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise OutputError(
                    f"Line {number} of {os.fspath(path)} is damaged: {error}. Remove the file and run the evaluation "
                    "again: it is written anew."
                ) from error
    return records
