"""The batches of a run: which samples a step takes, and the share of each process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.errors import RecipeError
from vlm_adapters.evaluation.process import Process
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples


@dataclass(frozen=True)
class Batch:
    """The share of a step's samples that this process takes, without those that cannot be read."""

    samples: Sequence[ExtractedSample]

    @property
    def phrases(self) -> int:
        """How many phrases they have."""
        return sum(len(sample.masks) for sample in self.samples)


class Batches:
    """The batches of a run. Which samples a step takes depends on its number and the seed alone.

    Args:
        samples: What to learn from; samples without a phrase are not taken.
        batch_size: Samples of one step, over all processes.
        seed: Seed of the order.
        workers: Threads that read ahead; 0 reads when a step is taken.

    Raises:
        RecipeError: No sample has a phrase.
    """

    def __init__(self, samples: ExtractedSamples, batch_size: int, seed: int, workers: int) -> None:
        self.samples, self.batch_size, self.seed, self.workers = samples, batch_size, seed, workers
        self.usable = np.array([i for i in range(len(samples)) if samples.phrase_count(i)])
        if not len(self.usable):
            raise RecipeError("There is no phrase to learn from in the training data. Give data with phrases.")
        self.per_epoch = math.ceil(len(self.usable) / batch_size)

    def epoch(self, number: int) -> tuple[ExtractedSamples, list[int]]:
        """The samples as they are in an epoch, and their order."""
        order = np.random.default_rng((self.seed, number)).permutation(self.usable)
        return self.samples.at_epoch(number), order.tolist()

    def read(self, steps: range, process: Process) -> Iterator[tuple[int, Batch]]:
        """Read the share of this process of every step.

        Samples of the next steps are read and prepared ahead; where a backbone runs, it runs one step ahead.
        """
        epoch = lru_cache(maxsize=2)(self.epoch)

        def prepare(number: int) -> Callable[[], list[ExtractedSample]]:
            epoch_number, position = divmod(number, self.per_epoch)
            samples, order = epoch(epoch_number)
            indices = order[position * self.batch_size : (position + 1) * self.batch_size]
            return samples.prepare(indices[process.index :: process.count])

        prepared = map_ahead(prepare, steps, workers=self.workers, most=self.workers)

        def finished(number: int) -> tuple[int, Batch]:
            return number, Batch(next(prepared)())

        batches = map_ahead(finished, steps, workers=min(self.workers, 1), most=1)
        with closing(prepared), closing(batches):  # first the one that takes of the other
            yield from batches
