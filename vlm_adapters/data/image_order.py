"""The order in which samples are computed: those of one image beside each other, so that they share its pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby

from vlm_adapters.data.dataset import Dataset


def indices_by_image(dataset: Dataset) -> list[int]:
    """Sort the indices of a data set by the files of their images, in the order in which these occur first.

    Samples without an image file keep their places among the images.
    """
    return sorted(range(len(dataset)), key=first_of_same(image_keys(dataset)).__getitem__)


def image_keys(dataset: Dataset) -> list[Hashable]:
    """What is equal for samples that show the same image file, and for no others."""
    return [dataset.image_file(index) or index for index in range(len(dataset))]


def first_of_same(keys: Sequence[Hashable]) -> list[int]:
    """For every key the position of the first one that equals it."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(key, position) for position, key in enumerate(keys)]


def divide_by_runs(keys: Sequence[Hashable], most: int) -> list[range]:
    """Divide positions into parts of at most `most`; neighbours with equal keys stay together where they fit.

    Examples:
        >>> from vlm_adapters.data.image_order import divide_by_runs
        >>> divide_by_runs(["a", "b", "b", "b", "c"], most=3)
        [range(0, 1), range(1, 4), range(4, 5)]
    """
    parts: list[range] = []
    start = end = 0
    for _, run in groupby(keys):
        first, end = end, end + len(list(run))
        if start < first and end - start > most:
            parts.append(range(start, first))
            start = first
        while end - start > most:
            parts.append(range(start, start + most))
            start += most
    return [*parts, range(start, end)] if start < end else parts
