"""What every data set is: samples by index, and annotations that are read without opening an image."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from typing_extensions import override

from vlm_adapters.data.access import DEFAULT_ACCESS, Access
from vlm_adapters.data.sample import Annotation, Sample
from vlm_adapters.errors import DataError, ImageError
from vlm_adapters.reading import open_regular


@dataclass(frozen=True)
class Problem:
    """Something that keeps a sample, or an entry of a file, from being used.

    Attributes:
        place: Where it is: `file:line`, lines counted from 1, or `file[entry]`, entries from 0.
        message: What is wrong, and what to do.
    """

    place: str
    message: str


class ProblemList:
    """Collects the problems of a file, of which no more are kept than a person reads.

    Args:
        path: The file.
        most: How many entries may be broken.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path, most
        self._found: list[Problem] = []

    def add(self, place: str, message: str) -> None:
        """Add a problem.

        Raises:
            DataError: There are too many.
        """
        self._found.append(Problem(place, message))
        if len(self._found) > self._most:
            raise DataError(
                f"{self._path} has more than {self._most:,} broken entries, so it is probably of another kind. The "
                f"first is {self._found[0].place}: {self._found[0].message}"
            )

    def as_tuple(self) -> tuple[Problem, ...]:
        """The problems, in the order in which they were found."""
        return tuple(self._found)


class Dataset(Sequence[Sample]):
    """Samples that are read only when they are used. Two threads, or two processes, may read at once.

    Attributes:
        skips_broken: Whether a sample that cannot be read is left out and counted instead of being an error.
        problems: What was left out when the set was opened.
        access: How far it may reach.
    """

    access: Access = DEFAULT_ACCESS
    skips_broken: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    @abstractmethod
    def source(self) -> str:
        """The set in one line that `open_dataset` opens again; for a slice, a description that it does not open."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the samples."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Read a sample, `0 <= index < len`.

        Raises:
            DataError: Its masks are broken.
            ImageError: Its image is missing or cannot be used.
        """

    def annotation(self, index: int) -> Annotation:
        """Read a sample without its image and masks, opening no image where the format allows it."""
        return self.sample(index)

    def place(self, index: int) -> str:
        """The place of a sample in its files, as in `Problem.place`."""
        return f"{self.source}[{index}]"

    def image_file(self, index: int) -> Path | None:  # noqa: ARG002 - subclasses with files use it
        """The file that `load_image` makes a sample's image of; None where there is no such file."""
        return None

    def mask_files(self, index: int) -> tuple[Path, ...]:  # noqa: ARG002 - subclasses with files use it
        """The files that hold masks of a sample alone."""
        return ()

    def files(self) -> tuple[Path, ...]:
        """The files that list the samples; the files of single samples are not among them."""
        return ()

    def fingerprint(self) -> str:
        """Identify the content: the digest changes with any of `files`, and with the size of a sample's file.

        Reads `files`; takes only names and sizes in bytes of `image_file` and `mask_files`, and opens none of them.
        """
        digest = hashlib.sha256(self.source.encode())
        for path in self.files():
            with open_regular(path) as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        for index in range(len(self)):
            for file in filter(None, (self.image_file(index), *self.mask_files(index))):
                size = file.stat().st_size if file.is_file() else None
                digest.update(f"{file.name} {size}\n".encode())
        return digest.hexdigest()

    def at_epoch(self, epoch: int) -> Dataset:  # noqa: ARG002 - subclasses that draw use it
        """The set as it is in an epoch of training; it has the same length, and differs only where it draws."""
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
    """Chosen samples of another set, in a chosen order.

    Args:
        dataset: The set to choose from.
        indices: Indices into it.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, indices
        self.skips_broken, self.problems = dataset.skips_broken, dataset.problems
        self.access = dataset.access

    @property
    @override
    def source(self) -> str:
        indices = self._indices if isinstance(self._indices, range) else list(self._indices)
        return f"{self._dataset.source} [indices {indices}]"

    def __len__(self) -> int:
        return len(self._indices)

    @override
    def sample(self, index: int) -> Sample:
        return self._dataset.sample(self._indices[index])

    @override
    def annotation(self, index: int) -> Annotation:
        return self._dataset.annotation(self._indices[index])

    @override
    def place(self, index: int) -> str:
        return self._dataset.place(self._indices[index])

    @override
    def image_file(self, index: int) -> Path | None:
        return self._dataset.image_file(self._indices[index])

    @override
    def mask_files(self, index: int) -> tuple[Path, ...]:
        return self._dataset.mask_files(self._indices[index])

    @override
    def files(self) -> tuple[Path, ...]:
        return self._dataset.files()

    @override
    def at_epoch(self, epoch: int) -> Dataset:
        return Subset(self._dataset.at_epoch(epoch), self._indices)


def read_samples(dataset: Dataset, indices: Iterable[int]) -> Iterator[tuple[int, Sample | Problem]]:
    """Read samples one after another.

    Yields:
        Each index with its sample or, where `dataset.skips_broken`, with what is wrong with it.

    Raises:
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    for index in indices:
        result: Sample | Problem
        try:
            result = dataset.sample(index)
        except (DataError, ImageError) as error:
            problem = Problem(dataset.place(index), str(error))
            if not dataset.skips_broken:
                raise type(error)(f"{problem.place}: {problem.message}") from error
            result = problem
        yield index, result
