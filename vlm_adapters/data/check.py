"""Reading all of a data set: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vlm_adapters.data.dataset import Dataset, Problem, read_samples


@dataclass(frozen=True)
class DataReport:
    """What a data set holds.

    Attributes:
        source: The set, as `Dataset.source`.
        samples: Number of samples that can be used.
        images: Number of different images that they have, by `image_id`.
        phrases: Number of phrases that they have.
        empty_masks: Number of phrases whose mask has no pixel.
        tags: Number of phrases with each tag.
        problems: What cannot be used: entries, and samples whose image or masks are broken.
    """

    source: str
    samples: int
    images: int
    phrases: int
    empty_masks: int
    tags: Mapping[str, int]
    problems: tuple[Problem, ...]


def check_dataset(dataset: Dataset, indices: Iterable[int]) -> DataReport:
    """Read samples one after another, opening every image and every mask.

    Args:
        dataset: A set that skips what is broken (`open_skipping`).
        indices: The samples to read; `range(len(dataset))` for all.

    Raises:
        DataError: Masks are broken, and the set does not skip them.
        ImageError: An image is missing or cannot be used, and the set does not skip it.
    """
    problems = list(dataset.problems)
    images: set[str] = set()
    tags: Counter[str] = Counter()
    samples = phrases = empty_masks = 0
    for _, sample in read_samples(dataset, indices):
        if isinstance(sample, Problem):
            problems.append(sample)
            continue
        samples += 1
        phrases += len(sample.phrases)
        images.add(sample.image_id)
        empty_masks += int((~sample.masks.any((1, 2))).sum())
        tags.update(tag for phrase_tags in sample.phrase_tags for tag in phrase_tags)
    return DataReport(
        dataset.source, samples, len(images), phrases, empty_masks, dict(sorted(tags.items())), tuple(problems)
    )
