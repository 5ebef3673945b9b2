"""The cache of what a decoder reads: a backbone runs over a data set once, and training does not need it again.

A folder holds `fingerprint.json` (what is computed), shards (`shard-000000.safetensors` with a manifest each) and, when
all are there, `index.json`. Every file is written under another name and renamed, so a kill at any time loses one shard
at most, and no file is half written. Building again resumes where it stopped, computes anew what differs, and ends with
the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.locks import FOLDER_LOCK, locked_folder
from vlm_adapters.data.sample import Sample
from vlm_adapters.data.sealed import sha256_of_file
from vlm_adapters.errors import CacheError, DataError, OutputError
from vlm_adapters.training.cache.fingerprint import FINGERPRINT_FILE, CacheFingerprint
from vlm_adapters.training.cache.index import INDEX_FILE, CacheIndex
from vlm_adapters.training.cache.shard import (
    SHARD_FILE,
    LeftOut,
    Manifest,
    ShardEntry,
    damaged,
    read_rows,
    shard_name,
    write_shard,
)
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples, LiveSamples, image_digest

SHARD_SAMPLES = 64


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is.

    Attributes:
        samples: Samples done so far, computed or found.
        total: Samples of the data set.
        computed: Samples for which the backbone ran.
        bytes: Size of the shards so far, and of what is in memory for the next.
    """

    samples: int
    total: int
    computed: int
    bytes: int


def build_cache(
    live: LiveSamples,
    folder: Path,
    *,
    shard_samples: int = SHARD_SAMPLES,
    report: Callable[[BuildProgress], None] = lambda _: None,
) -> CacheIndex:
    """Run a backbone over a data set, and keep what a decoder reads. Resumes where an earlier build stopped.

    Args:
        live: Backbone and data.
        folder: Folder of the cache; one with another fingerprint is refused.
        shard_samples: Samples per shard. A shard is in memory as a whole.
        report: Called after every sample, and after every shard.

    Raises:
        CacheError: The folder holds a cache with another fingerprint, or the data set is drawn anew in every epoch.
        DataError: The data set is empty, or a sample of it is broken and the set does not skip such samples.
        OutputError: The folder cannot be written to, or another process is building there.
    """
    if not len(live.data):
        raise DataError(f"There is no sample in {live.data.source}. Give data with at least one.")
    if live.data.at_epoch(0).source != live.data.at_epoch(1).source:
        raise CacheError(
            f"{live.data.source} is drawn anew in every epoch, and a cache is the same in all. Take sentences=all, or "
            "train without a cache: cache=null."
        )
    with locked_folder(folder):
        _prepare_folder(folder, live.fingerprint)
        return _build(live, folder, shard_samples, report)


def _build(live: LiveSamples, folder: Path, shard_samples: int, report: Callable[[BuildProgress], None]) -> CacheIndex:
    entries: list[tuple[str, int, int]] = []  # no more of a manifest, or memory would grow with the data
    left_out: list[LeftOut] = []
    shards: list[int] = []
    manifests: list[str] = []
    computed = size = 0
    for number, start in enumerate(range(0, len(live.data), shard_samples)):
        indices = range(start, min(start + shard_samples, len(live.data)))
        shard = _ShardBuild.of(live.data, live.fingerprint, indices)
        manifest = shard.found(folder, number)
        if manifest is None:
            if not (folder / FINGERPRINT_FILE).is_file():
                raise OutputError(f"The cache {folder} was removed while it was built. Build it again.")
            (folder / INDEX_FILE).unlink(missing_ok=True)  # from here on the cache is unfinished
            begun = BuildProgress(start, len(live.data), computed, size)
            manifest = write_shard(folder, number, shard.entries, shard.extracted(live, begun, report), shard.left_out)
            computed += len(shard.samples)
        size += manifest.bytes
        shards.append(len(manifest.samples))
        manifests.append(manifest.digest)
        entries += ((sample.id, sample.index, sample.phrases) for sample in manifest.samples)
        left_out += manifest.left_out
        report(BuildProgress(indices.stop, len(live.data), computed, size))
    for path in folder.iterdir():
        if (match := SHARD_FILE.fullmatch(path.name)) and int(match[1]) >= len(shards):
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
    return index


def is_intact(folder: Path, data: Dataset) -> bool:
    """Whether a cache is finished, every shard has the bytes that were written, and all of it is of this data set.

    Reads every sample and every shard, and runs no backbone.
    """
    try:
        fingerprint, index = CacheFingerprint.read(folder), CacheIndex.read(folder)
    except CacheError:
        return False
    if sha256_of_file(folder / FINGERPRINT_FILE) != index.fingerprint:
        return False
    starts = range(0, len(data), index.shard_samples)
    if len(starts) != len(index.manifests):
        return False
    for number, start in enumerate(starts):
        indices = range(start, min(start + index.shard_samples, len(data)))
        manifest = _ShardBuild.of(data, fingerprint, indices).found(folder, number)
        if manifest is None or manifest.digest != index.manifests[number]:
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
        # shard and row of every sample, so that a look-up takes one step
        self._shard = np.repeat(np.arange(len(self.index.shards)), self.index.shards)
        self._row = np.arange(len(self)) - np.repeat(np.cumsum([0, *self.index.shards[:-1]]), self.index.shards)

    @override
    def __len__(self) -> int:
        return len(self.index.ids)

    @override
    def phrase_count(self, index: int) -> int:
        return self.index.phrases[index]

    @override
    def data_index(self, index: int) -> int:
        return self.index.indices[index]

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


@dataclass(frozen=True)
class _ShardBuild:
    """The samples of one shard, and what its manifest says of them."""

    samples: list[Sample]
    entries: list[ShardEntry]
    left_out: list[LeftOut]

    @classmethod
    def of(cls, data: Dataset, fingerprint: CacheFingerprint, indices: range) -> Self:
        samples, entries, left_out = [], [], []
        for index, sample in read_samples(data, indices):
            if isinstance(sample, Problem):
                left_out.append(LeftOut(index=index, message=f"{sample.place}: {sample.message}"))
            else:
                samples.append(sample)
                key = sample_key(sample, fingerprint)
                entries.append(ShardEntry(index=index, id=sample.id, key=key, phrases=len(sample.phrases)))
        return cls(samples, entries, left_out)

    def extracted(
        self, live: LiveSamples, begun: BuildProgress, report: Callable[[BuildProgress], None]
    ) -> list[ExtractedSample]:
        """Run the backbone, and report after every sample, counted on from where the shard begins."""
        found: list[ExtractedSample] = []
        size = begun.bytes
        for sample in self.samples:
            found.append(live.extract(sample))
            size += found[-1].nbytes
            report(BuildProgress(begun.samples + len(found), begun.total, begun.computed + len(found), size))
        return found

    def found(self, folder: Path, number: int) -> Manifest | None:
        """The manifest of an earlier build, if its shard is intact and holds the same."""
        try:
            manifest = Manifest.read(folder / f"{shard_name(number)}.json")
        except CacheError:
            return None
        same = manifest.samples == self.entries and manifest.left_out == self.left_out
        return manifest if same and manifest.is_intact(folder) else None


def sample_key(sample: Sample, fingerprint: CacheFingerprint) -> str:
    """Digest of all that the cached features of a sample depend on."""
    digest = hashlib.sha256()
    spans = [phrase.span for phrase in sample.phrases]
    annotation = json.dumps([sample.image_id, sample.text, spans, sample.phrase_ids, sample.phrase_tags])
    for part in (fingerprint.digest, image_digest(sample), annotation):
        digest.update(part.encode())
    digest.update(np.packbits(sample.masks).tobytes())
    return digest.hexdigest()


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
