"""One shard while it is built: what is read of its samples, and what the backbone gives of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from vlm_adapters.data.ahead import default_workers, map_ahead
from vlm_adapters.data.dataset import Dataset, Problem, read_samples
from vlm_adapters.data.image_order import indices_by_image
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import CacheError
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.cache.shard import LeftOut, Manifest, ShardEntry, shard_name
from vlm_adapters.training.samples import ExtractedSample, LiveSamples, image_digest


@dataclass(frozen=True)
class ReadSample:
    """A sample of the data set, or what is wrong with it, and the digest of what its features depend on."""

    index: int
    sample: Sample | Problem
    key: str


@dataclass
class ShardBuild:
    """The samples of one shard, and what its manifest says of them.

    Attributes:
        number: Its number.
        samples: Its samples.
        entries: What the manifest says of every sample.
        left_out: The samples that were skipped.
        found: The manifest of an earlier build, if its shard is intact and holds the same.
        extracted: What the backbone gave of every sample, once it has run.
    """

    number: int
    samples: list[Sample] = field(default_factory=list)
    entries: list[ShardEntry] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    found: Manifest | None = None
    extracted: list[ExtractedSample] = field(default_factory=list)

    def add(self, read: ReadSample) -> None:
        """Add a sample that was read."""
        if isinstance(read.sample, Problem):
            message = f"{read.sample.place}: {read.sample.message}"
            self.left_out.append(LeftOut(index=read.index, message=message))
            return
        self.samples.append(read.sample)
        entry = ShardEntry(index=read.index, id=read.sample.id, key=read.key, phrases=len(read.sample.phrases))
        self.entries.append(entry)

    def extract(self, live: LiveSamples, tell: Callable[[int, int], None]) -> None:
        """Run the backbone, and say after every sample how many are done and how many bytes they have."""
        found: dict[int, ExtractedSample] = {}
        size = 0
        with closing(live.extract_all(self.samples)) as extracted:
            for position, sample in extracted:
                found[position] = sample
                size += sample.nbytes
                tell(len(found), size)
        self.extracted = [found[position] for position in range(len(found))]

    def manifest_found(self, folder: Path) -> Manifest | None:
        """The manifest of an earlier build, if its shard is intact and holds the same."""
        try:
            manifest = Manifest.read(folder / f"{shard_name(self.number)}.json")
        except CacheError:
            return None
        same = manifest.samples == self.entries and manifest.left_out == self.left_out
        return manifest if same and manifest.is_intact(folder) else None


def shard_indices(data: Dataset, shard_samples: int) -> list[list[int]]:
    """The indices of the samples of every shard, in which those of one image stand beside each other."""
    order = indices_by_image(data)
    return [order[start : start + shard_samples] for start in range(0, len(order), shard_samples)]


def read_shards(
    data: Dataset, fingerprint: CacheFingerprint, share: range, shard_samples: int, workers: int | None
) -> Generator[ShardBuild]:
    """Read the samples of some shards; those of the next shard are read while one is worked on."""

    def read(index: int) -> ReadSample:
        ((_, sample),) = read_samples(data, [index])
        return ReadSample(index, sample, "" if isinstance(sample, Problem) else sample_key(sample, fingerprint))

    shards = shard_indices(data, shard_samples)
    indices = (index for number in share for index in shards[number])
    workers = default_workers() if workers is None else workers
    with closing(map_ahead(read, indices, workers=workers, most=shard_samples)) as samples:
        for number in share:
            shard = ShardBuild(number)
            for found in islice(samples, len(shards[number])):
                shard.add(found)
            yield shard


def sample_key(sample: Sample, fingerprint: CacheFingerprint) -> str:
    """Digest of all that the cached features of a sample depend on."""
    digest = hashlib.sha256()
    spans = [phrase.span for phrase in sample.phrases]
    annotation = json.dumps([sample.image_id, sample.text, spans, sample.phrase_ids, sample.phrase_tags])
    for part in (fingerprint.digest, image_digest(sample), annotation):
        digest.update(part.encode())
    digest.update(np.packbits(sample.masks).tobytes())
    return digest.hexdigest()
