"""Data sets for FiftyOne, which shows images with their masks in a browser."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, OptionError

FIELD = "ground_truth"
"""The field of a FiftyOne sample that holds its phrases."""


def to_fiftyone(dataset: Dataset, name: str | None = None, indices: Iterable[int] | None = None) -> Any:
    """Convert a data set to a `fiftyone.Dataset` of its image files.

    A sample has `text`, `source_id` and `image_id`, and in `ground_truth` a `fiftyone.Detection` for every phrase that
    has a pixel: its words as label, its box, its mask within the box, and its tags. `absent` lists the other phrases.

    Args:
        dataset: The set. Its images are files; one that draws its images is written to a folder first. What it skips as
            broken is left out.
        name: The name of the new FiftyOne data set; None lets FiftyOne choose.
        indices: The samples to convert; None for all.

    Raises:
        OptionError: `fiftyone` is not installed.
        DataError: An image is no file, or masks are broken and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    try:
        library = import_module("fiftyone")
    except ImportError as error:
        raise OptionError("fiftyone is not installed. Install it with pip install fiftyone.") from error
    samples = []
    for index, sample in read_samples(dataset, range(len(dataset)) if indices is None else indices):
        if isinstance(sample, Problem):
            continue
        file = dataset.image_file(index)
        if file is None:
            raise DataError(
                f"The images of {dataset.source} are no files. Write them first: adapters data convert, or "
                "write_folder in Python."
            )
        samples.append(
            library.Sample(
                filepath=str(file.resolve()),
                text=sample.text,
                source_id=sample.id,
                image_id=sample.image_id,
                absent=[p.text for p, mask in zip(sample.phrases, sample.masks, strict=True) if not mask.any()],
                **{FIELD: library.Detections(detections=_detections(library, sample))},
            )
        )
    found = library.Dataset(name)
    found.add_samples(samples)
    return found


def _detections(library: Any, sample: Sample) -> list[Any]:
    tags = sample.phrase_tags or ((),) * len(sample.phrases)
    return [
        library.Detection(label=phrase.text, tags=list(words), **_boxed(mask))
        for phrase, mask, words in zip(sample.phrases, sample.masks, tags, strict=True)
        if mask.any()
    ]


def _boxed(mask: NDArray[np.bool_]) -> dict[str, object]:
    """The box of a mask as FiftyOne has it, `[left, top, width, height]` in shares of the image, and the mask in it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = mask.shape
    box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
    return {"bounding_box": [float(value) for value in box], "mask": mask[top:bottom, left:right]}
