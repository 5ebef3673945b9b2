"""Converting any data set to the plain form (`vlm_adapters.data.formats.folder`)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.files import whole_folder
from vlm_adapters.data.formats.folder import SAMPLES_FILE
from vlm_adapters.data.locks import locked_name
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OutputError
from vlm_adapters.images import read_header

IMAGES = "images"
"""The folder of the images within the folder of the set."""


def write_folder(dataset: Dataset, out: str | os.PathLike[str], indices: Iterable[int]) -> tuple[Problem, ...]:
    """Write samples in the plain form. Reading them back gives equal texts, phrases, ids, tags, pixels and masks.

    An image is written once, however many samples show it. A file that is upright and RGB is copied unchanged; any
    other image becomes a PNG.

    Args:
        dataset: The set.
        out: A folder that is new or empty; it appears when everything is written.
        indices: The samples to write; `range(len(dataset))` for all.

    Returns:
        What was left out, if the set skips what is broken.

    Raises:
        OutputError: The folder is not empty, cannot be written to, or another process is about to write it.
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    with locked_name(out):
        if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
            raise OutputError(f"{os.fspath(out)} already exists and is not an empty folder. Choose another path.")
        return _write(dataset, Path(out), indices)


def _write(dataset: Dataset, out: Path, indices: Iterable[int]) -> tuple[Problem, ...]:
    problems = []
    names: dict[tuple[str, Path | None], str] = {}
    with whole_folder(out) as folder:
        (folder / IMAGES).mkdir()
        with (folder / SAMPLES_FILE).open("w", encoding="utf-8", newline="\n") as lines:
            for index, sample in read_samples(dataset, indices):
                if isinstance(sample, Problem):
                    problems.append(sample)
                    continue
                file = dataset.image_file(index)
                image = (sample.image_id, file)
                if image not in names:
                    names[image] = _write_image(sample.image, file, folder, len(names))
                lines.write(json.dumps(_line(sample, names[image]), ensure_ascii=False) + "\n")
    return tuple(problems)


def _write_image(image: Image.Image, file: Path | None, folder: Path, number: int) -> str:
    """Write an image, and return its path within the folder."""
    if file is not None and read_header(file).is_upright_rgb:
        name = f"{IMAGES}/{number:06}{file.suffix}"
        shutil.copyfile(file, folder / name)
    else:
        name = f"{IMAGES}/{number:06}.png"
        image.save(folder / name)
    return name


def _line(sample: Sample, image: str) -> dict[str, object]:
    phrases: list[dict[str, object]] = [
        {"span": list(phrase.span), "mask": encode_rle(mask)}
        for phrase, mask in zip(sample.phrases, sample.masks, strict=True)
    ]
    for phrase, phrase_id in zip(phrases, sample.phrase_ids, strict=False):
        phrase["id"] = phrase_id
    for phrase, tags in zip(phrases, sample.phrase_tags, strict=False):
        phrase["tags"] = list(tags)
    return {
        "id": sample.id,
        "image": image,
        "image_id": sample.image_id,
        "text": sample.text,
        "phrases": phrases,
    }
