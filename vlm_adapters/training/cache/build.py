"""The cache of what a decoder reads: a backbone runs over a data set once, and training does not need it again.

A folder holds `fingerprint.json` (what is computed), shards (`shard-000000.safetensors` with a manifest each) and, when
all are there, `index.json`. Every file is written under another name and renamed, so a kill at any time loses one shard
at most, and no file is half written. Building again resumes where it stopped, computes anew what differs, and ends with
the same bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from typing_extensions import override

from vlm_adapters.data.ahead import map_ahead
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.locks import FOLDER_LOCK, locked_folder
from vlm_adapters.data.sealed import sha256_of_file
from vlm_adapters.errors import CacheError, DataError, OutputError
from vlm_adapters.evaluation.process import ALONE, Process
from vlm_adapters.training.cache.fingerprint import FINGERPRINT_FILE, CacheFingerprint
from vlm_adapters.training.cache.index import INDEX_FILE, CacheIndex
from vlm_adapters.training.cache.shard import (
    SHARD_FILE,
    LeftOut,
    Manifest,
    damaged,
    read_rows,
    shard_name,
    write_shard,
)
from vlm_adapters.training.cache.shard_build import ShardBuild, read_shards, shard_indices
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples, LiveSamples

SHARD_SAMPLES = 64


@dataclass(frozen=True)
class BuildProgress:
    """How far a process is with its share of a build.

    Attributes:
        samples: Samples done so far, computed or found.
        total: Samples of the share.
        computed: Samples for which the backbone ran.
        bytes: Size of the shards so far, and of what is in memory for the next.
    """

    samples: int
    total: int
    computed: int
    bytes: int

    @property
    def done(self) -> int:
        """The same by the name of every `Progress`."""
        return self.samples

    @property
    def unit(self) -> str:
        """What is counted."""
        return "samples"

    @property
    def status(self) -> str:
        """What else there is to show."""
        return f"{self.bytes / 1e6:,.1f} MB"


def build_cache(
    live: LiveSamples,
    folder: Path,
    *,
    shard_samples: int = SHARD_SAMPLES,
    process: Process = ALONE,
    report: Callable[[BuildProgress], None] = lambda _: None,
) -> CacheIndex:
    """Run a backbone over a data set, and keep what a decoder reads. Resumes where an earlier build stopped.

    Several processes share the shards: of `n`, the one with index `i` builds `i`, `i + n`, `i + 2 n`, ... The first
    holds the folder for all, and writes the index when all shards are there.

    Args:
        live: Backbone and data.
        folder: Folder of the cache; one with another fingerprint is refused.
        shard_samples: Samples per shard. In memory are one that is computed, one that is written, and the samples of
            the next.
        process: Which of the processes this is.
        report: Called after every sample, and after every shard.

    Raises:
        CacheError: The folder holds a cache with another fingerprint, or the data set is drawn anew in every epoch.
        DataError: The data set is empty, or a sample of it is broken and the set does not skip such samples.
        OutputError: The folder cannot be written to, or another process is building there, or one of those that share
            the work has ended.
    """
    if not len(live.data):
        raise DataError(f"There is no sample in {live.data.source}. Give data with at least one.")
    if live.data.at_epoch(0).source != live.data.at_epoch(1).source:
        raise CacheError(
            f"{live.data.source} is drawn anew in every epoch, and a cache is the same in all. Take sentences=all, or "
            "train without a cache: cache=null."
        )
    with locked_folder(folder) if process.is_first else nullcontext():
        if process.is_first:
            _prepare_folder(folder, live.fingerprint)
        process.wait()  # until the first holds the folder
        _prepare_folder(folder, live.fingerprint)
        _build(live, folder, shard_samples, process, report)
        process.wait()  # until all shards are there
        if process.is_first:
            _finish(live, folder, shard_samples)
        process.wait()
        return CacheIndex.read(folder)


def _build(
    live: LiveSamples, folder: Path, shard_samples: int, process: Process, report: Callable[[BuildProgress], None]
) -> None:
    """Compute what is missing of the shards of this process."""
    shards = shard_indices(live.data, shard_samples)
    share = range(process.index, len(shards), process.count)
    done, total, computed, size = 0, sum(len(shards[number]) for number in share), 0, 0

    def tell(of_shard: int = 0, in_memory: int = 0) -> None:
        report(BuildProgress(done + of_shard, total, computed + of_shard, size + in_memory))

    def extracted() -> Iterator[ShardBuild]:
        """The shards, computed where they were not found."""
        nonlocal done, computed, size
        for shard in read_shards(live.data, live.fingerprint, share, shard_samples, live.workers):
            shard.found = shard.manifest_found(folder)
            if shard.found is None:
                shard.extract(live, tell)
                computed += len(shard.samples)
            else:
                size += shard.found.bytes
            done += len(shards[shard.number])
            yield shard

    with closing(map_ahead(partial(_write, folder), extracted(), workers=min(live.workers, 1), most=1)) as written:
        for shard_bytes in written:
            size += shard_bytes
            tell()


def _write(folder: Path, shard: ShardBuild) -> int:
    """Write a shard that was computed; gives its size, or 0 for one that was found."""
    if shard.found is not None:
        return 0
    if not (folder / FINGERPRINT_FILE).is_file():
        raise OutputError(f"The cache {folder} was removed while it was built. Build it again.")
    (folder / INDEX_FILE).unlink(missing_ok=True)  # from here on the cache is unfinished
    return write_shard(folder, shard.number, shard.entries, shard.extracted, shard.left_out).bytes


def _finish(live: LiveSamples, folder: Path, shard_samples: int) -> None:
    """Write the index of a cache whose shards are all there."""
    count = math.ceil(len(live.data) / shard_samples)
    entries: list[tuple[str, int, int]] = []  # no more of a manifest, or memory would grow with the data
    left_out: list[LeftOut] = []
    shards: list[int] = []
    manifests: list[str] = []
    size = 0
    for number in range(count):
        manifest = Manifest.read(folder / f"{shard_name(number)}.json")
        size += manifest.bytes
        shards.append(len(manifest.samples))
        manifests.append(manifest.digest)
        entries += ((sample.id, sample.index, sample.phrases) for sample in manifest.samples)
        left_out += manifest.left_out
    for path in folder.iterdir():
        if (match := SHARD_FILE.fullmatch(path.name)) and int(match[1]) >= count:
            path.unlink()  # of a longer data set, or of smaller shards
    index = CacheIndex(
        data_fingerprint=live.data.fingerprint(),
        shard_samples=shard_samples,
        bytes=size,
        ids=[name for name, _, _ in entries],
        indices=[index for _, index, _ in entries],
        phrases=[phrases for _, _, phrases in entries],
        shards=shards,
        left_out=left_out,
        fingerprint=sha256_of_file(folder / FINGERPRINT_FILE),
        manifests=manifests,
    )
    index.write(folder)


def is_intact(folder: Path, data: Dataset, process: Process = ALONE, workers: int | None = None) -> bool:
    """Whether a cache is finished, every shard has the bytes that were written, and all of it is of this data set.

    Reads every sample and every shard, those of this process's share where there are several, and runs no backbone.
    """
    try:
        fingerprint, index = CacheFingerprint.read(folder), CacheIndex.read(folder)
    except CacheError:
        return False
    if sha256_of_file(folder / FINGERPRINT_FILE) != index.fingerprint:
        return False
    count = math.ceil(len(data) / index.shard_samples)
    if count != len(index.manifests):
        return False
    share = range(process.index, count, process.count)
    for shard in read_shards(data, fingerprint, share, index.shard_samples, workers):
        manifest = shard.manifest_found(folder)
        if manifest is None or manifest.digest != index.manifests[shard.number]:
            return False
    return True


class CachedSamples(ExtractedSamples):
    """Reads the samples of a finished cache; any of them in the same time. Safe to use from several processes.

    What is read is what was written: index and fingerprint are compared with their digests at once, a shard and its
    manifest when the first of its samples is read.

    Args:
        folder: Folder of the cache.

    Attributes:
        folder: Folder of the cache.
        fingerprint: What was computed.
        index: Where every sample is.

    Raises:
        CacheError: It is not a cache, an unfinished one, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.fingerprint = CacheFingerprint.read(self.folder)
        self.index = CacheIndex.read(self.folder)
        if sha256_of_file(self.folder / FINGERPRINT_FILE) != self.index.fingerprint:
            raise CacheError(
                f"{self.folder / FINGERPRINT_FILE} was changed after it was written: its sha256 differs. Delete the "
                f"folder {self.folder}, and build the cache again."
            )
        self._checked: set[int] = set()
        # entry, shard and row of every sample, so that a look-up takes one step; samples are in the data set's order
        self._entry = np.argsort(self.index.indices, kind="stable")
        starts = np.cumsum([0, *self.index.shards[:-1]])
        self._shard = np.repeat(np.arange(len(self.index.shards)), self.index.shards)[self._entry]
        self._row = (np.arange(len(self)) - np.repeat(starts, self.index.shards))[self._entry]

    @override
    def __len__(self) -> int:
        return len(self.index.ids)

    @override
    def phrase_count(self, index: int) -> int:
        return self.index.phrases[int(self._entry[index])]

    @override
    def data_index(self, index: int) -> int:
        return self.index.indices[int(self._entry[index])]

    @override
    def at_epoch(self, epoch: int) -> CachedSamples:
        return self  # a cache is the same in every epoch

    @override
    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, index in enumerate(indices):
            rows[int(self._shard[index])].append((position, int(self._row[index])))
        found: dict[int, ExtractedSample] = {}
        for number, wanted in sorted(rows.items()):
            self._check(number)
            samples = read_rows(self.folder / f"{shard_name(number)}.safetensors", [row for _, row in wanted])
            found |= {position: sample for (position, _), sample in zip(wanted, samples, strict=True)}
        return [found[position] for position in range(len(indices))]

    def _check(self, number: int) -> None:
        """Compare a shard and its manifest with their digests, once."""
        if number in self._checked:
            return
        manifest = Manifest.read(self.folder / f"{shard_name(number)}.json")
        if manifest.digest != self.index.manifests[number]:
            raise damaged(self.folder / f"{shard_name(number)}.json", "its sha256 differs from that in the index")
        if not manifest.is_intact(self.folder):
            raise damaged(self.folder / manifest.file, "its sha256 differs from that in its manifest")
        self._checked.add(number)


def _prepare_folder(folder: Path, fingerprint: CacheFingerprint) -> None:
    """Make the folder the cache with this fingerprint."""
    if (folder / FINGERPRINT_FILE).is_file():
        if differences := CacheFingerprint.read(folder).differences(fingerprint):
            raise CacheError(
                f"The cache {folder} has another fingerprint: {'; '.join(differences)}. Give another folder, "
                "or delete it."
            )
        return
    if any(path.name != FOLDER_LOCK for path in folder.iterdir()):
        raise CacheError(f"The folder {folder} holds other things, and no {FINGERPRINT_FILE}. Give a new folder.")
    fingerprint.write(folder)
