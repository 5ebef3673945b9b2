"""What every data set is: samples by index, and what they say without opening an image."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.errors import DataError, ImageError


@dataclass(frozen=True)
class Problem:
    """Something that keeps a sample, or an entry of a file, from being used.

    Attributes:
        place: Where it stands: `file:line`, lines counted from 1, or `file[entry]`, entries from 0.
        told: What is wrong, and what to do.
    """

    place: str
    told: str


class Dataset(Sequence[Sample]):
    """Samples that are read when they are asked for. Two threads, or two processes, may read at once.

    Attributes:
        skips_broken: What `sample` cannot read is left out by those who go through the set, and counted, instead of
            being an error.
        problems: What was left out when the set was opened.
    """

    skips_broken: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    @abstractmethod
    def source(self) -> str:
        """What the set is, in one line that `open_dataset` opens again; not that of a part taken by hand."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Read a sample, `0 <= index < len`.

        Raises:
            DataError: Its masks are broken.
            ImageError: Its image is missing or cannot be used.
        """

    def annotation(self, index: int) -> Annotation:
        """What a sample says; no image is opened where the source tells without."""
        return self.sample(index)

    def place(self, index: int) -> str:
        """Where a sample stands, as in `Problem.place`."""
        return f"{self.source}[{index}]"

    def image_file(self, index: int) -> Path | None:  # noqa: ARG002 - others have files
        """The file that `load_image` makes a sample's image of; None where there is no such file."""
        return None

    def mask_file(self, index: int) -> Path | None:  # noqa: ARG002 - others have files
        """The file of a sample's masks alone; None where there is no such file."""
        return None

    def files(self) -> tuple[Path, ...]:
        """The files that say what the set holds; those of single samples are not among them."""
        return ()

    def fingerprint(self) -> str:
        """Names what the set holds: another one where a file that says so has changed, or one of a sample its size.

        Reads `files`; of `image_file` and `mask_file` it takes names and sizes in bytes, and opens none.
        """
        digest = hashlib.sha256(self.source.encode())
        for file in self.files():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        for index in range(len(self)):
            for file in filter(None, (self.image_file(index), self.mask_file(index))):
                size = file.stat().st_size if file.is_file() else None
                digest.update(f"{file.name} {size}\n".encode())
        return digest.hexdigest()

    def at_epoch(self, epoch: int) -> Dataset:  # noqa: ARG002 - others draw
        """The set as it is in an epoch of training, as long as this one; unlike it only where something is drawn."""
        return self

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Subset: ...
    def __getitem__(self, index: int | slice) -> Sample | Subset:
        """Read the sample at `index`, or take a part of the set without reading anything."""
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        return self.sample(range(len(self))[index])


class Subset(Dataset):
    """Some samples of a set, in an order of their own.

    Args:
        whole: The set.
        indices: Into it.
    """

    def __init__(self, whole: Dataset, indices: Sequence[int]) -> None:
        self._whole, self._indices = whole, indices
        self.skips_broken, self.problems = whole.skips_broken, whole.problems

    @property
    def source(self) -> str:
        """See `Dataset`."""
        told = self._indices if isinstance(self._indices, range) else list(self._indices)
        return f"{self._whole.source} [indices {told}]"

    def __len__(self) -> int:
        return len(self._indices)

    def sample(self, index: int) -> Sample:
        """See `Dataset`."""
        return self._whole.sample(self._indices[index])

    def annotation(self, index: int) -> Annotation:
        """See `Dataset`."""
        return self._whole.annotation(self._indices[index])

    def place(self, index: int) -> str:
        """See `Dataset`."""
        return self._whole.place(self._indices[index])

    def image_file(self, index: int) -> Path | None:
        """See `Dataset`."""
        return self._whole.image_file(self._indices[index])

    def mask_file(self, index: int) -> Path | None:
        """See `Dataset`."""
        return self._whole.mask_file(self._indices[index])

    def files(self) -> tuple[Path, ...]:
        """See `Dataset`."""
        return self._whole.files()

    def at_epoch(self, epoch: int) -> Dataset:
        """See `Dataset`."""
        return Subset(self._whole.at_epoch(epoch), self._indices)


def read_samples(dataset: Dataset, indices: Iterable[int]) -> Iterator[tuple[int, Sample | Problem]]:
    """Read samples one after another, as those who go through a set do.

    Yields:
        The index and its sample, or where `dataset.skips_broken` what is wrong with it.

    Raises:
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    for index in indices:
        read: Sample | Problem
        try:
            read = dataset.sample(index)
        except (DataError, ImageError) as error:
            problem = Problem(dataset.place(index), str(error))
            if not dataset.skips_broken:
                raise type(error)(f"{problem.place}: {problem.told}") from error
            read = problem
        yield index, read
