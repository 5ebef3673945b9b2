"""The way from a model and a data set to records: batch by batch, by one process or many, with resume."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.sample import Sample
from vlm_adapters.evaluation.partial_results import Batch
from vlm_adapters.evaluation.protocols import find_masks, protocol_named
from vlm_adapters.evaluation.record import records_of
from vlm_adapters.grounding.base import Grounder


@dataclass(frozen=True)
class Evaluation:
    """A model, a data set, and how it is asked for.

    The batches are the same whoever computes them and whatever was done before, since the rounding of a sample depends
    on those beside it: so the records are the same for one process and for many, unbroken and resumed.

    Attributes:
        grounder: Finds the masks.
        dataset: Has the truth.
        protocol: A key of `PROTOCOLS`.
        size: Samples of a batch, and prompts that are computed at once.
    """

    grounder: Grounder = field(repr=False)
    dataset: Dataset = field(repr=False)
    protocol: str
    size: int

    @property
    def numbers(self) -> range:
        """Of all batches."""
        return range(math.ceil(len(self.dataset) / self.size))

    def indices(self, number: int) -> range:
        """Of the samples of a batch."""
        return range(len(self.dataset))[number * self.size : (number + 1) * self.size]

    def batch(self, number: int) -> Batch:
        """Read, ground and compare the samples of a batch.

        Raises:
            DataError: A sample is broken, and the data set does not skip it.
            ImageError: An image is missing or cannot be used, and the data set does not skip it.
        """
        read = list(read_samples(self.dataset, self.indices(number)))
        good = [(index, sample) for index, sample in read if isinstance(sample, Sample)]
        samples = [sample for _, sample in good]
        asked = [protocol_named(self.protocol)(sample) for sample in samples]
        found = find_masks(self.grounder, asked, self.size)
        records = [
            record
            for (index, sample), prompts, masks in zip(good, asked, found, strict=True)
            for record in records_of(index, sample, prompts, masks)
        ]
        skipped = tuple((index, problem) for index, problem in read if isinstance(problem, Problem))
        return Batch(number, tuple(index for index, _ in good), tuple(records), skipped)
