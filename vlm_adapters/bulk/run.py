"""A bulk run: a task over the prompts of a source, into shards, with resume and in several processes.

The members of shards and batches are fixed by the manifest alone, and a batch holds the rounding of its members. So one
process and many, in one go or after kills, end with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from vlm_adapters.bulk.prompts import PromptSource
from vlm_adapters.bulk.shards import (
    MANIFEST_FILE,
    BulkIndex,
    BulkManifest,
    FailedItem,
    Item,
    ShardManifest,
    write_shard,
)
from vlm_adapters.bulk.task import FAILURES, Failure, Row, Task
from vlm_adapters.data.ahead import default_workers, map_ahead
from vlm_adapters.data.locks import FOLDER_LOCK, locked_folder
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import OptionError, OutputError
from vlm_adapters.evaluation.fingerprint import installed_versions
from vlm_adapters.evaluation.process import ALONE, Process
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


@dataclass(frozen=True)
class BulkProgress:
    """How far a process is with its share.

    Attributes:
        items: Items that are done, those of an interrupted run included.
        total: Items of the share.
        failed: How many of the items that were done here could not be used.
    """

    items: int
    total: int
    failed: int


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


def run_bulk(
    task: Task,
    source: PromptSource,
    folder: str | Path,
    settings: BulkSettings | None = None,
    *,
    process: Process = ALONE,
    report: Callable[[BulkProgress], None] = lambda _: None,
) -> BulkIndex:
    """Do a task with every image of a source. Resumes where an earlier run into the folder stopped.

    Several processes share the shards: of `n`, the one with index `i` computes `i`, `i + n`, `i + 2 n`, ... An image
    that cannot be used is recorded and skipped.

    Args:
        task: What to do.
        source: The prompts.
        folder: Folder of the results; one with another run is refused.
        settings: Sizes of shards and batches.
        process: Which of the processes this is.
        report: Called at the start and after every batch.

    Returns:
        What the run has, in every process.

    Raises:
        OutputError: The folder holds another run or other things, cannot be written to, or is in use; or one of the
            processes that share the work has ended.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from vlm_adapters.bulk import Extract, open_prompts, read_results, run_bulk
        >>> with TemporaryDirectory() as folder:
        ...     index = run_bulk(Extract("tiny-llava"), open_prompts("scenes:count=3,seed=4"), folder)
        ...     found = {item.id: row["fine.attention"].shape for item, row in read_results(folder)}
        >>> index.items, len(index.failed), found["0"]  # phrases, layers, heads, h, w
        (3, 0, (3, 4, 8, 16, 16))
    """
    folder, settings = Path(folder), settings or BulkSettings()
    manifest = _manifest_of(task, source, settings)
    with locked_folder(folder) if process.is_first else nullcontext():
        if process.is_first:
            _prepare_folder(folder, manifest)
        process.wait()  # until the first holds the folder
        with _threads(manifest.threads):
            _compute(_Run(task, source, manifest, settings), folder, process, report)
        process.wait()  # until all shards are there
        if process.is_first:
            _finish(folder, manifest)
        process.wait()
        return BulkIndex.read(folder)


@dataclass(frozen=True)
class _Run:
    """The shards of a run."""

    task: Task
    source: PromptSource
    manifest: BulkManifest
    settings: BulkSettings

    def shards(self, numbers: Sequence[int], tell: Callable[[int, int], None]) -> Iterator[_Shard]:
        """Compute shards, and say after every batch how many of its items are done and how many failed.

        Images are read ahead by several threads, and batches prepared by one.
        """
        workers = default_workers() if self.settings.workers is None else self.settings.workers
        batches = [batch for number in numbers for batch in self.manifest.batches(self.manifest.shards[number])]
        items = (item for batch in batches for item in batch)
        with closing(map_ahead(self._read, items, workers=workers, most=2 * self.manifest.batch_size)) as read:
            taken = (dict(islice(read, len(batch))) for batch in batches)
            with closing(map_ahead(self._prepared, taken, workers=min(workers, 1), most=1)) as prepared:
                for number in numbers:
                    shard = _Shard(number)
                    for batch in islice(prepared, len(self.manifest.batches(self.manifest.shards[number]))):
                        self._add(shard, batch)
                        tell(len(batch.prompts) + len(batch.failures), len(shard.failed))
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


def _compute(run: _Run, folder: Path, process: Process, report: Callable[[BulkProgress], None]) -> None:
    """Compute what is missing of the shards of this process."""
    shards = run.manifest.shards
    share = range(process.index, len(shards), process.count)
    left = [number for number in share if ShardManifest.intact(folder, number) is None]
    total = sum(len(shards[number]) for number in share)
    progress = BulkProgress(total - sum(len(shards[number]) for number in left), total, 0)
    report(progress)
    failed_before = 0

    def tell(items: int, failed_of_shard: int) -> None:
        nonlocal progress
        progress = replace(progress, items=progress.items + items, failed=failed_before + failed_of_shard)
        report(progress)

    computed = run.shards(left, tell)
    with closing(map_ahead(partial(_write, run.manifest, folder), computed, workers=1, most=1)) as written:
        for shard in written:
            failed_before += len(shard.failed)


def _write(manifest: BulkManifest, folder: Path, shard: _Shard) -> ShardManifest:
    if not (folder / MANIFEST_FILE).is_file():
        raise OutputError(f"The folder {folder} was removed while it was written. Give the same command again.")
    return write_shard(folder, shard.number, manifest.suffix, shard.rows, shard.failed)


def _finish(folder: Path, manifest: BulkManifest) -> None:
    """Write the index of a run whose shards are all there."""
    size, failed, digests = 0, list[FailedItem](), list[str]()
    for number in range(len(manifest.shards)):
        shard = ShardManifest.read(folder, number)
        size += shard.bytes
        failed += shard.failed
        digests.append(shard.digest)
    BulkIndex(items=manifest.items, bytes=size, failed=failed, manifests=digests).write(folder)


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
    before, there = BulkManifest.read(folder), {path.name for path in folder.iterdir()} - {FOLDER_LOCK}
    if before is None and there:
        raise OutputError(f"The folder {folder} holds other things, and no {MANIFEST_FILE}. Give a new folder.")
    if there <= {MANIFEST_FILE}:  # nothing was computed yet, so it may become another run
        manifest.write(folder)
    elif before is not None and (differences := before.differences(manifest)):
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
