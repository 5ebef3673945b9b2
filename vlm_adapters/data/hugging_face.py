"""Data sets from and to `datasets` of Hugging Face. Nothing is fetched or sent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.documents import usable_text
from vlm_adapters.data.formats.coco_files import blank_masks
from vlm_adapters.data.formats.labelled import joined, usable_labels
from vlm_adapters.data.formats.mask_png import check_mask_size, inside_of
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, OptionError
from vlm_adapters.images import load_image, read_header
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Phrase

if TYPE_CHECKING:
    import datasets


class Rows(Protocol):
    """What has rows: a `datasets.Dataset`, or a list of dictionaries."""

    def __len__(self) -> int:
        """Count the rows."""

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """Read a row."""


def from_datasets(
    rows: Rows, *, image: str = "image", text: str = "text", phrases: str = "phrases", masks: str = "masks"
) -> Dataset:
    """Take a `datasets.Dataset` for a data set of this library. Rows are read when they are used.

    The other columns that `to_datasets` writes (`id`, `image_id`, `spans`, `phrase_ids`, `phrase_tags`, `ignored`) are
    read where they are there.

    Args:
        rows: A split, not a dictionary of splits. A list of dictionaries will do.
        image: The column of the images, of any kind that `load_image` takes.
        text: The column of the sentences. Without it, a text is its phrases, joined by commas.
        phrases: The column of the phrases: a list of words of the sentence, or the words of one.
        masks: The column of their masks: for each an image or an array `(H, W)`, inside where it is neither black (0)
            nor transparent.

    Returns:
        A set for `evaluate` and, once `write_folder` has written it, for a recipe.

    Raises:
        DataError: There is no row, or a column is missing. One that cannot be used is an error when it is read.
    """
    if isinstance(rows, Mapping):
        raise DataError(f"It holds the splits {shown(list(rows))}. Give one of them.")
    if not len(rows):
        raise DataError("There is no row. Give a split that has some.")
    if missing := [name for name in (image, phrases, masks) if name not in rows[0]]:
        raise DataError(
            f"There is no column {shown(missing[0])} among {shown(list(rows[0]))}. Name it with image=, phrases= or "
            "masks=."
        )
    return _RowSamples(rows, {"image": image, "text": text, "phrases": phrases, "masks": masks})


class _RowSamples(Dataset):
    """Samples of rows.

    Args:
        rows: The rows.
        columns: The names of their columns, by those of `to_datasets`.
    """

    def __init__(self, rows: Rows, columns: Mapping[str, str]) -> None:
        self._rows, self._columns = rows, columns

    @property
    @override
    def source(self) -> str:
        return f"{len(self)} rows of a {type(self._rows).__name__}"

    def __len__(self) -> int:
        return len(self._rows)

    @override
    def place(self, index: int) -> str:
        return f"row {index}"

    @override
    def fingerprint(self) -> str:
        """Identify the content, by all texts, pixels and masks."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            sample = self.sample(index)
            facts = (sample.id, sample.image_id, sample.text, sample.phrases, sample.phrase_ids, sample.phrase_tags)
            digest.update(f"{facts} {sample.image.size}".encode())
            digest.update(sample.image.tobytes())
            for masks in (sample.masks, sample.ignored):
                digest.update(b"" if masks is None else np.packbits(masks).tobytes())
        return digest.hexdigest()

    @override
    def sample(self, index: int) -> Sample:
        found = self._rows[index]
        row = {**found, **{name: found.get(column) for name, column in self._columns.items()}}
        limits = self.access.limits
        if isinstance(row["phrases"], str):
            row["phrases"], row["masks"] = [row["phrases"]], [row["masks"]]
        words, entries = row["phrases"], row["masks"]
        if not words or not entries or len(words) != len(entries):
            raise DataError(f"It has the phrases {shown(words)} and {len(entries or ())} masks. Give a mask for each.")
        text, phrases = _phrases(row) if row["text"] is not None else joined(usable_labels(words, limits))
        usable_text(text, limits)
        image = load_image(_decodable(row["image"]), limits)
        size = (image.height, image.width)
        masks = blank_masks(len(phrases), size, limits)
        for mask, entry, phrase in zip(masks, entries, phrases, strict=True):
            mask[:] = _mask(entry, size, f"The mask of {shown(phrase.text)}")
        name = str(row.get("id", index))
        return Sample(
            id=name,
            image_id=str(row.get("image_id", name)),
            text=text,
            phrases=phrases,
            phrase_ids=tuple(row.get("phrase_ids") or ()),
            phrase_tags=tuple(tuple(tags) for tags in row.get("phrase_tags") or ()),
            image=image,
            masks=masks,
            ignored=None if row.get("ignored") is None else _mask(row["ignored"], size, "ignored"),
        )


def _phrases(row: Mapping[str, Any]) -> tuple[str, tuple[Phrase, ...]]:
    text = row["text"]
    if spans := row.get("spans"):
        return text, tuple(Phrase.at(text, *span) for span in spans)
    return text, tuple(Phrase.find(text, words) for words in row["phrases"])


def _decodable(image: object) -> Any:
    """The image, or the bytes or path of one that `datasets` was told not to decode."""
    if isinstance(image, Mapping):
        return image.get("bytes") or image.get("path")
    return image


def _mask(mask: object, size: tuple[int, int], what: str) -> NDArray[np.bool_]:
    try:
        inside = inside_of(mask) if isinstance(mask, Image.Image) else np.asarray(mask) != 0
        height, width = inside.shape
        check_mask_size((height, width), size)
    except DataError as error:
        raise DataError(f"{what} is broken: {error}") from error
    except ValueError as error:  # a shape of other than two sides, or values of which numpy makes no array
        raise DataError(f"{what} is {shown(type(mask))}, not an image or an array (H, W): {error}.") from error
    return inside


def to_datasets(dataset: Dataset, indices: Iterable[int] | None = None) -> datasets.Dataset:
    """Convert a data set to a `datasets.Dataset`, in memory. `from_datasets` makes equal samples of it.

    Its columns are `id`, `image_id`, `image`, `text`, `phrases` (their words), `spans` (`[start, end)` in characters),
    `masks` (images, 255 inside), `phrase_ids`, `phrase_tags` and `ignored` (an image, or null).

    Args:
        dataset: The set. What it skips as broken is left out.
        indices: The samples to convert; None for all.

    Raises:
        OptionError: `datasets` is not installed.
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise OptionError('datasets is not installed. Install it with pip install "vlm-adapters[datasets]".') from error
    indices = range(len(dataset)) if indices is None else indices
    rows = [
        _row(sample, dataset.image_file(index))
        for index, sample in read_samples(dataset, indices)
        if not isinstance(sample, Problem)
    ]
    text, image, several = library.Value("string"), library.Image(), library.List
    features = library.Features(
        id=text,
        image_id=text,
        image=image,
        text=text,
        phrases=several(text),
        spans=several(several(library.Value("int32"), length=2)),
        masks=several(image),
        phrase_ids=several(text),
        phrase_tags=several(several(text)),
        ignored=image,
    )
    found: datasets.Dataset = library.Dataset.from_list(rows, features=features)
    return found


def _row(sample: Sample, file: Path | None) -> dict[str, object]:
    return {
        "id": sample.id,
        "image_id": sample.image_id,
        "image": {"path": None, "bytes": _image_bytes(sample.image, file)},
        "text": sample.text,
        "phrases": [phrase.text for phrase in sample.phrases],
        "spans": [list(phrase.span) for phrase in sample.phrases],
        "masks": [_mask_image(mask) for mask in sample.masks],
        "phrase_ids": list(sample.phrase_ids),
        "phrase_tags": [list(tags) for tags in sample.phrase_tags],
        "ignored": None if sample.ignored is None else _mask_image(sample.ignored),
    }


def _image_bytes(image: Image.Image, file: Path | None) -> bytes:
    """The file as it is, if every program shows it alike; otherwise a PNG."""
    return file.read_bytes() if file is not None and read_header(file).is_upright_rgb else _png(image)


def _mask_image(mask: NDArray[np.bool_]) -> dict[str, object]:
    return {"path": None, "bytes": _png(Image.fromarray(mask.astype(np.uint8) * 255))}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
