"""Measure that building a cache takes no more memory the larger it gets, and that reading a sample of it no more time.

    python examples/lab/measure_cache_memory.py [--model tiny-qwen2_5_vl] [--count 10000] [--report FILE]

Takes about 10 minutes and 650 MB of disk (in `$TMPDIR`, deleted at the end) with the 10,000 scenes of the default.
Memory is what the process holds in RAM (its resident set), looked at 20 times a second
while the backbone runs and shards are written. Random samples are read one by one, in turn from the large cache and
from one of two shards; every sample was read once before, so that the disk's speed plays no part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
from report import write_report

from vlm_adapters import load_adapter
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.training.cache.build import SHARD_SAMPLES, BuildProgress, CachedSamples, build_cache
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.samples import LiveSamples

SEED = 5
"""Of the scenes: neither learnt from, nor chosen or measured by."""
READS = 400
MEGABYTE = 1_000_000
LOOK_EVERY = 0.05
PRINT_EVERY = 500
MOST_GROWTH, MOST_SLOWER = 1.05, 1.25
"""Of memory from the first quarter to the last; of the median reading time, which jitters on a busy machine."""


class MemoryWatch:
    """Looks again and again at how much memory this process holds, and how many samples are cached by then."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.seen: list[tuple[int, int]] = []
        self._process, self._over = psutil.Process(), threading.Event()
        self._started = perf_counter()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look while the block runs."""
        watcher = threading.Thread(target=self._look)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()

    def progress(self, progress: BuildProgress) -> None:
        """Note how far the build is, and print it now and then."""
        if progress.samples // PRINT_EVERY > self.done // PRINT_EVERY:
            held = self._process.memory_info().rss / MEGABYTE
            seconds = perf_counter() - self._started
            print(f"{progress.samples:6d} scenes  {held:6.0f} MB in memory  {seconds:5.0f} s", flush=True)
        self.done = progress.samples

    def quarters(self) -> list[float]:
        """Most memory held in each quarter of the samples, in MB."""
        most = [0, 0, 0, 0]
        for done, held in self.seen:
            quarter = min(4 * done // self.total, 3)
            most[quarter] = max(most[quarter], held)
        return [round(held / MEGABYTE, 1) for held in most]

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self.seen.append((self.done, self._process.memory_info().rss))


def build(adapter: BackboneAdapter, scenes: Scenes, folder: Path, watch: MemoryWatch) -> CachedSamples:
    """Cache scenes, and open the cache."""
    live = LiveSamples(adapter, scenes, CacheFingerprint.of(adapter, scenes.source, FeatureRequest()))
    with watch.looking():
        build_cache(live, folder, report=watch.progress)
    return CachedSamples(folder)


def reading_times(caches: Sequence[CachedSamples], reads: int) -> list[float]:
    """Median milliseconds to read a random sample of each cache, the caches taking turns."""
    rng = np.random.default_rng(0)
    chosen = [rng.integers(0, len(cache), reads).tolist() for cache in caches]
    taken: list[list[float]] = []
    for turn in range(2):
        taken = [[] for _ in caches]
        for indices in zip(*chosen, strict=True):
            for cache, index, times in zip(caches, indices, taken, strict=True):
                started = perf_counter()
                cache.read([index])
                times.append(1000 * (perf_counter() - started))
        if not turn:
            print(f"Reads {reads} random samples of each cache once more, now timed.", flush=True)
    return [round(statistics.median(times), 3) for times in taken]


def measure(model: str, count: int, folder: Path) -> dict[str, object]:
    """Build a small and a large cache in a folder, and say what they take."""
    adapter = load_adapter(model, device="cpu")
    few = 2 * SHARD_SAMPLES  # whole shards, as those of the large cache
    small = build(adapter, Scenes(few, seed=SEED), folder / "small", MemoryWatch(few))
    watch = MemoryWatch(count)
    started = perf_counter()
    large = build(adapter, Scenes(count, seed=SEED), folder / "large", watch)
    seconds = perf_counter() - started
    quarters = watch.quarters()
    of_small, of_large = reading_times((small, large), READS)
    growth, slower = quarters[-1] / quarters[0], of_large / of_small
    return {
        "model": model,
        "scenes": count,
        "seconds": round(seconds, 1),
        "bytes": large.index.bytes,
        "most memory per quarter, MB": quarters,
        "most memory, last quarter / first": round(growth, 4),
        "samples of the small cache": few,
        "median ms to read a sample, small cache": of_small,
        "median ms to read a sample, large cache": of_large,
        "reading, large / small": round(slower, 3),
        "memory is flat": growth <= MOST_GROWTH,
        "reading is as fast": slower <= MOST_SLOWER,
    }


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--count", type=int, default=10000, help="scenes of the large cache")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        numbers = measure(arguments.model, arguments.count, Path(temporary))
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
