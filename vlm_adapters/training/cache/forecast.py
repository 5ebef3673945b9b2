"""How large a cache will be and how long it will take, measured on a few samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter

from safetensors.numpy import save

from vlm_adapters.data.dataset import read_samples
from vlm_adapters.data.sample import Sample
from vlm_adapters.training.cache.index import CacheIndex
from vlm_adapters.training.cache.shard import packed
from vlm_adapters.training.data import CacheLocation, TrainingData, load_backbone, process_of
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import LiveSamples


@dataclass(frozen=True)
class Forecast:
    """What a cache will take.

    Attributes:
        data: Source of the data set.
        folder: Where the cache will be.
        finished: Whether it is there already; then the numbers are its own, and no time is needed.
        samples: Samples of the data set.
        bytes: Size of all shards.
        seconds: Time to compute them on this machine.
        measured: How many samples were measured.
    """

    data: str
    folder: str
    finished: bool
    samples: int
    bytes: int
    seconds: float
    measured: int

    def as_dict(self) -> dict[str, str | int | float | bool]:
        """The same as plain values."""
        return asdict(self)


def forecast(recipe: Recipe, count: int) -> list[Forecast]:
    """Say what the caches of a recipe will take, by running the backbone on the first samples of each data set.

    Args:
        recipe: Names the data and the backbone, which is loaded if a cache is not finished.
        count: Samples of each data set to measure on.

    Raises:
        RecipeError: The recipe has no cache, or its device is not there.
    """
    process = process_of(recipe)
    data = TrainingData.open(recipe)
    caches = data.caches()
    finished = [cache.is_finished() for cache in caches]
    adapter = None if all(finished) else load_backbone(recipe, process.device)
    return [
        _of_finished(cache) if adapter is None or done else _measured(cache, data.live(adapter, cache.data), count)
        for cache, done in zip(caches, finished, strict=True)
    ]


def _of_finished(cache: CacheLocation) -> Forecast:
    index = CacheIndex.read(cache.folder)
    return Forecast(
        cache.data.source,
        str(cache.folder),
        finished=True,
        samples=len(index.ids),
        bytes=index.bytes,
        seconds=0.0,
        measured=0,
    )


def _measured(cache: CacheLocation, live: LiveSamples, count: int) -> Forecast:
    total = len(cache.data)
    indices = range(min(count, total))
    _bytes(live, range(1))  # what is done only once does not count
    started = perf_counter()
    size = _bytes(live, indices)
    seconds = perf_counter() - started
    scale = total / len(indices)
    return Forecast(
        cache.data.source,
        str(cache.folder),
        finished=False,
        samples=total,
        bytes=round(size * scale),
        seconds=seconds * scale,
        measured=len(indices),
    )


def _bytes(live: LiveSamples, indices: range) -> int:
    """Size of some samples in a shard, computed as a build computes them."""
    samples = [sample for _, sample in read_samples(live.data, indices) if isinstance(sample, Sample)]
    return sum(len(save(packed(0, sample))) for _, sample in live.extract_all(samples))
