"""How large a cache will be and how long it will take, measured on a few samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter

from safetensors.numpy import save

from vlm_adapters.training.cache.build import CacheIndex
from vlm_adapters.training.cache.shard import packed
from vlm_adapters.training.data import CacheToBuild, Sources
from vlm_adapters.training.samples import LiveSamples


@dataclass(frozen=True)
class Forecast:
    """What a cache will take.

    Attributes:
        data: Its source.
        folder: Where it will be.
        finished: Whether it is there already; then all is as it is, and no time is needed.
        samples: Of the data set.
        bytes: Of all shards.
        seconds: To compute them on this machine.
        measured: On how many samples.
    """

    data: str
    folder: str
    finished: bool
    samples: int
    bytes: int
    seconds: float
    measured: int

    def told(self) -> dict[str, str | int | float | bool]:
        """The same as plain values."""
        return asdict(self)


def forecast(sources: Sources, cache: CacheToBuild, count: int) -> Forecast:
    """Run the backbone on the first samples of a data set, and say what all of them will take.

    Args:
        sources: Of the recipe.
        cache: Which of its caches.
        count: Samples to measure on.
    """
    source, folder, total = cache.data.source, str(cache.folder), len(cache.data)
    if cache.is_finished():
        index = CacheIndex.read(cache.folder)
        return Forecast(
            source, folder, finished=True, samples=len(index.ids), bytes=index.bytes, seconds=0.0, measured=0
        )
    live = sources.live(cache.data)
    indices = range(min(count, total))
    _bytes(live, 0)  # what is done only once does not count
    started = perf_counter()
    size = sum(_bytes(live, index) for index in indices)
    seconds = perf_counter() - started
    scale = total / len(indices)
    return Forecast(
        source,
        folder,
        finished=False,
        samples=total,
        bytes=round(size * scale),
        seconds=seconds * scale,
        measured=len(indices),
    )


def _bytes(live: LiveSamples, index: int) -> int:
    """Of a sample in a shard."""
    return sum(len(save(packed(0, sample))) for sample in live.read([index]))
