"""A bulk run: a task over the prompts of a source, into shards.

The members of shards and batches are fixed by the manifest alone, and a batch holds the rounding of its members. So one
process and many, in one go or after kills, end with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

import torch

from vlm_adapters.bulk.formats import FailedItem, Item, Row, arrow_modules
from vlm_adapters.bulk.prompts import PromptSource
from vlm_adapters.bulk.shards import (
    MANIFEST_FILE,
    BulkIndex,
    BulkManifest,
    ShardManifest,
    write_shard,
)
from vlm_adapters.bulk.task import FAILURES, Failure, Task
from vlm_adapters.data.ahead import default_workers, map_ahead
from vlm_adapters.data.locks import FOLDER_LOCK, locked_folder
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import OptionError, OutputError
from vlm_adapters.evaluation.fingerprint import installed_versions
from vlm_adapters.prompt import Prompt


@dataclass(frozen=True)
class BulkSettings:
    """How the items of a run are divided.

    Attributes:
        shard_size: Items per shard; a kill loses one shard of every process at most.
        batch_size: Prompts that are computed at once.
        threads: Threads of torch where the model is on a CPU: they may change the rounding, so they are the same in
            every process.
        workers: Threads that read images ahead; None takes as many as the machine has cores for.
    """

    shard_size: int = 64
    batch_size: int = 8
    threads: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        if min(self.shard_size, self.batch_size, self.threads) < 1:
            raise OptionError("shard_size, batch_size and threads are at least 1.")


@dataclass
class _Shard:
    """The rows of one shard, as they come."""

    number: int
    rows: list[tuple[Item, Row]] = field(default_factory=list)
    failed: list[FailedItem] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """The prompts of a batch that could be read, by item, and what is wrong with the others."""

    prompts: dict[int, Prompt]
    failures: dict[int, Failure]
    finish: Callable[[], list[Row]]


@dataclass(frozen=True)
class BulkRun:
    """A run whose shards are computed by whoever asks for them; it can be sent to other processes.

    Whoever coordinates them holds the folder, hands out the numbers of the missing shards, and writes the index at the
    end. `run_bulk` does all of it in the processes of a launcher.

    Attributes:
        task: What to do with every image.
        source: The prompts.
        folder: Folder of the results.
        manifest: What is computed, and in which shards and batches.
        workers: Threads that read images ahead; None takes as many as the machine has cores for.
    """

    task: Task
    source: PromptSource
    folder: Path
    manifest: BulkManifest
    workers: int | None = None

    @classmethod
    def of(cls, task: Task, source: PromptSource, folder: str | Path, settings: BulkSettings | None = None) -> Self:
        """Describe a run; loads the model. Nothing is written yet.

        Args:
            task: What to do with every image.
            source: The prompts.
            folder: Folder of the results.
            settings: Sizes of shards and batches.
        """
        if task.suffix == "parquet":
            arrow_modules()  # a missing extra shows before the model is loaded
        settings = settings or BulkSettings()
        return cls(task, source, Path(folder), _manifest_of(task, source, settings), settings.workers)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while shards are written into it, with the manifest in it.

        Raises:
            OutputError: It holds another run or other things, is in use, or cannot be written to.
        """
        with locked_folder(self.folder):
            _prepare_folder(self.folder, self.manifest)
            yield

    def missing(self, numbers: Sequence[int] | None = None) -> list[int]:
        """The numbers of the shards, of these or of all, that are not there or not as they were written."""
        among = range(len(self.manifest.shards)) if numbers is None else numbers
        return [number for number in among if ShardManifest.intact(self.folder, number) is None]

    def compute(
        self, numbers: Sequence[int], tell: Callable[[int, int], None] = lambda *_: None
    ) -> Generator[ShardManifest]:
        """Compute and write shards.

        Args:
            numbers: Their numbers.
            tell: Called after every batch with the number of its items, and how many of them failed.

        Yields:
            The manifest of every shard, once it is there.

        Raises:
            OutputError: The folder holds another run, or none, or cannot be written to.
        """
        _check_manifest(self.folder, self.manifest)
        with (
            _threads(self.manifest.threads),
            closing(map_ahead(self._write, self._shards(numbers, tell), workers=1, most=1)) as written,
        ):
            yield from written

    def finish(self) -> BulkIndex:
        """Write the index of a run whose shards are all there.

        Raises:
            DataError: A shard is missing or damaged.
        """
        size, failed, digests = 0, list[FailedItem](), list[str]()
        for number in range(len(self.manifest.shards)):
            shard = ShardManifest.read(self.folder, number)
            size += shard.bytes
            failed += shard.failed
            digests.append(shard.digest)
        index = BulkIndex(items=self.manifest.items, bytes=size, failed=failed, manifests=digests)
        index.write(self.folder)
        return index

    def _shards(self, numbers: Sequence[int], tell: Callable[[int, int], None]) -> Iterator[_Shard]:
        """Compute shards; images are read ahead by several threads, and batches prepared by one."""
        workers = default_workers() if self.workers is None else self.workers
        shards = self.manifest.shards
        batches = [batch for number in numbers for batch in self.manifest.batches(shards[number])]
        items = (item for batch in batches for item in batch)
        with closing(map_ahead(self._read, items, workers=workers, most=2 * self.manifest.batch_size)) as read:
            taken = (dict(islice(read, len(batch))) for batch in batches)
            with closing(map_ahead(self._prepared, taken, workers=min(workers, 1), most=1)) as prepared:
                for number in numbers:
                    shard = _Shard(number)
                    for batch in islice(prepared, len(self.manifest.batches(shards[number]))):
                        before = len(shard.failed)
                        self._add(shard, batch)
                        tell(len(batch.prompts) + len(batch.failures), len(shard.failed) - before)
                    yield shard

    def _read(self, index: int) -> tuple[int, Prompt | Failure]:
        try:
            return index, self.source.read(index)
        except FAILURES as error:
            return index, Failure(str(error))

    def _prepared(self, read: dict[int, Prompt | Failure]) -> _Batch:
        prompts = {index: entry for index, entry in read.items() if isinstance(entry, Prompt)}
        failures = {index: entry for index, entry in read.items() if isinstance(entry, Failure)}
        if not prompts:
            return _Batch(prompts, failures, list)
        try:
            return _Batch(prompts, failures, self.task.prepare([*prompts.values()]))
        except FAILURES as error:
            return _Batch(prompts, failures, partial(_raise, error))

    def _add(self, shard: _Shard, batch: _Batch) -> None:
        """Run the model over a batch."""
        prompts = [*batch.prompts.values()]
        rows = dict(zip(batch.prompts, self.task.rows_or_failures(prompts, batch.finish), strict=True))
        for index, row in sorted({**rows, **batch.failures}.items()):
            if isinstance(row, Failure):
                failed = FailedItem(index=index, id=self.source.id(index), message=row.message)
                shard.failed.append(failed)
                continue
            prompt = batch.prompts[index]
            spans = [phrase.span for phrase in prompt.phrases]
            shard.rows.append((Item(index=index, id=self.source.id(index), text=prompt.text, spans=spans), row))

    def _write(self, shard: _Shard) -> ShardManifest:
        if not (self.folder / MANIFEST_FILE).is_file():
            raise OutputError(f"The folder {self.folder} was removed while it was written. Give the command again.")
        return write_shard(self.folder, shard.number, self.manifest.suffix, shard.rows, shard.failed)


def _manifest_of(task: Task, source: PromptSource, settings: BulkSettings) -> BulkManifest:
    info = task.adapter.info
    backbone = {**asdict(info), "checkpoint": alias_of(info.checkpoint) or info.checkpoint}
    backbone["device"] = torch.device(info.device).type  # its number differs between processes
    content = {
        "task": task.name,
        "settings": task.settings,
        "backbone": backbone,
        "source": source.source,
        "source_fingerprint": source.fingerprint(),
        "items": len(source),
        "shard_size": settings.shard_size,
        "batch_size": settings.batch_size,
        "threads": settings.threads if backbone["device"] == "cpu" else None,
        "suffix": task.suffix,
        "versions": installed_versions(),
    }
    return BulkManifest.model_validate_json(json.dumps(content))  # plain values, as they are read again


def _prepare_folder(folder: Path, manifest: BulkManifest) -> None:
    """Make the folder that of this run."""
    there = {path.name for path in folder.iterdir()} - {FOLDER_LOCK}
    if there <= {MANIFEST_FILE}:  # nothing was computed yet, so it may become another run
        manifest.write(folder)
    else:
        _check_manifest(folder, manifest)


def _check_manifest(folder: Path, manifest: BulkManifest) -> None:
    """Check that a folder is that of this run."""
    before = BulkManifest.read(folder)
    if before is None:
        raise OutputError(f"There is no {MANIFEST_FILE} in the folder {folder}. Give a new folder.")
    if differences := before.differences(manifest):
        raise OutputError(f"{folder} holds another run: {'; '.join(differences)}. Give another folder, or delete it.")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _raise(error: Exception) -> list[Row]:
    raise error
