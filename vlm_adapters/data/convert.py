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
from vlm_adapters.errors import DataError, OutputError
from vlm_adapters.images import read_header
from vlm_adapters.limits import shown

IMAGES = "images"
"""The folder of the images within the folder of the set."""


def write_folder(dataset: Dataset, out: str | os.PathLike[str], indices: Iterable[int]) -> tuple[Problem, ...]:
    """Write samples in the plain form. Reading them back gives equal texts, phrases, ids, tags, pixels and masks.

    An image is written once, however many samples show it. A file that is upright and RGB is copied unchanged; any
    other image becomes a PNG. A set that may reach outside the folder of its images is not converted, so that nothing
    from there is carried on.

    Args:
        dataset: The set.
        out: A folder that is new or empty; it appears when everything is written.
        indices: The samples to write; `range(len(dataset))` for all.

    Returns:
        What was left out, if the set skips what is broken.

    Raises:
        OutputError: The folder is not empty, cannot be written to, or another process is about to write it.
        DataError: Masks are broken, and the set does not skip them; two samples have the same id, or two images; or
            the set was opened with `allow_outside`.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    if dataset.access.allow_outside:
        raise DataError(
            f"{dataset.source} was opened with allow_outside, and files outside its folder are not copied. Open it "
            "without, or copy them into the folder yourself."
        )
    with locked_name(out):
        if not is_free(out):
            raise OutputError(f"{os.fspath(out)} already exists and is not an empty folder. Choose another path.")
        return _write(dataset, Path(out), indices)


def _write(dataset: Dataset, out: Path, indices: Iterable[int]) -> tuple[Problem, ...]:
    problems = []
    ids: set[str] = set()
    names: dict[str, tuple[Path | None, str]] = {}
    with whole_folder(out) as folder:
        (folder / IMAGES).mkdir()
        with (folder / SAMPLES_FILE).open("w", encoding="utf-8", newline="\n") as lines:
            for index, sample in read_samples(dataset, indices):
                if isinstance(sample, Problem):
                    problems.append(sample)
                    continue
                file = dataset.image_file(index)
                if sample.image_id not in names:
                    names[sample.image_id] = (file, _write_image(sample.image, file, folder, len(names)))
                first, name = names[sample.image_id]
                _check_ids(sample, ids, first, file)
                lines.write(json.dumps(_line(sample, name), ensure_ascii=False) + "\n")
    return tuple(problems)


def is_free(out: str | os.PathLike[str]) -> bool:
    """Whether a folder is new or empty."""
    try:
        return not os.listdir(out)  # noqa: PTH208 - `Path` raises where a name is impossible
    except FileNotFoundError:
        return True
    except OSError:
        return False
    except ValueError as error:
        raise OutputError(f"{shown(os.fspath(out), 200)} cannot be written: {error}. Choose another path.") from error


def _check_ids(sample: Sample, ids: set[str], first: Path | None, file: Path | None) -> None:
    if sample.id in ids:
        raise DataError(f"Two samples have the id {shown(sample.id)}. Give every sample its own.")
    if first != file:
        raise DataError(f"{first} and {file} have the image id {shown(sample.image_id)}. Give every image its own.")
    ids.add(sample.id)


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
    ignored = {} if sample.ignored is None else {"ignored": encode_rle(sample.ignored)}
    return {
        "id": sample.id,
        "image": image,
        "image_id": sample.image_id,
        "text": sample.text,
        "phrases": phrases,
        **ignored,
    }
