"""What every data set is: samples by index, and what they say without opening a picture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from vlm_adapters.data.sample import Annotation, Sample


@dataclass(frozen=True)
class Problem:
    """Something that keeps a sample, or an entry of a file, from being used.

    Attributes:
        place: Where it stands: file, and line or entry.
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
        """What the set is, in one line: the same text opens the same set (`open_dataset`)."""

    @abstractmethod
    def __len__(self) -> int:
        """How many samples."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Read a sample, `0 <= index < len`.

        Raises:
            DataError: Its masks are broken.
            ImageError: Its picture is missing or cannot be used.
        """

    def annotation(self, index: int) -> Annotation:
        """What a sample says; no picture is opened where the source tells without."""
        return self.sample(index)

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
        told: In what the part differs, for `source`; by default the indices.
    """

    def __init__(self, whole: Dataset, indices: Sequence[int], told: str | None = None) -> None:
        self._whole, self._indices = whole, indices
        self._told = told
        self.skips_broken, self.problems = whole.skips_broken, whole.problems

    @property
    def source(self) -> str:
        """See `Dataset`."""
        told = self._told or f"indices {self._indices if isinstance(self._indices, range) else list(self._indices)}"
        return f"{self._whole.source} [{told}]"

    def __len__(self) -> int:
        return len(self._indices)

    def sample(self, index: int) -> Sample:
        """See `Dataset`."""
        return self._whole.sample(self._indices[index])

    def annotation(self, index: int) -> Annotation:
        """See `Dataset`."""
        return self._whole.annotation(self._indices[index])
