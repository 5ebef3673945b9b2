"""Writing any data set in the plain form (`vlm_adapters.data.formats.folder`)."""

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
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OutputError

IMAGES = "images"
"""Their folder within the set's."""

_ORIENTATION_TAG = 0x0112


def write_folder(dataset: Dataset, out: str | os.PathLike[str], indices: Iterable[int]) -> tuple[Problem, ...]:
    """Write samples in the plain form. Reading them back gives equal texts, phrases, ids, tags, pixels and masks.

    An image is written once however many samples it has: a file that is upright and RGB is copied as it is, any other
    image becomes a PNG.

    Args:
        dataset: The set.
        out: A folder that is new or empty; it appears when all is written.
        indices: Which samples; `range(len(dataset))` for all.

    Returns:
        What was left out, if the set skips what is broken.

    Raises:
        OutputError: The folder is not empty, or cannot be written to.
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise OutputError(f"{os.fspath(out)} is there and not an empty folder. Give another place.")
    problems = []
    names: dict[tuple[str, Path | None], str] = {}
    with whole_folder(out) as folder:
        (folder / IMAGES).mkdir()
        with (folder / SAMPLES_FILE).open("w", encoding="utf-8") as lines:
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
    """Write an image, and tell its path within the folder."""
    if file is not None and _is_plain(file):
        name = f"{IMAGES}/{number:06}{file.suffix}"
        shutil.copyfile(file, folder / name)
    else:
        name = f"{IMAGES}/{number:06}.png"
        image.save(folder / name)
    return name


def _is_plain(file: Path) -> bool:
    """Whether anyone who opens the file gets the same upright RGB image."""
    with Image.open(file) as header:
        upright = header.getexif().get(_ORIENTATION_TAG, 1) == 1
        return upright and header.mode == "RGB" and not header.has_transparency_data


def _line(sample: Sample, image: str) -> dict[str, object]:
    phrases: list[dict[str, object]] = [
        {"span": list(phrase.span), "mask": encode_rle(mask)}
        for phrase, mask in zip(sample.phrases, sample.masks, strict=True)
    ]
    for phrase, name in zip(phrases, sample.phrase_ids, strict=False):
        phrase["id"] = name
    for phrase, tags in zip(phrases, sample.phrase_tags, strict=False):
        phrase["tags"] = list(tags)
    return {
        "id": sample.id,
        "image": image,
        "image_id": sample.image_id,
        "text": sample.text,
        "phrases": phrases,
    }
