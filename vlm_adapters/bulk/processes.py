"""The processes that compute the shards of a run: those of a launcher, or whatever hands out the shards' numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.bulk.prompts import PromptSource
from vlm_adapters.bulk.run import BulkRun, BulkSettings
from vlm_adapters.bulk.shards import BulkIndex
from vlm_adapters.bulk.task import Task
from vlm_adapters.evaluation.process import ALONE, Process

_LOG = logging.getLogger(__name__)


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

    @property
    def done(self) -> int:
        """The same by the name of every `Progress`."""
        return self.items

    @property
    def unit(self) -> str:
        """What is counted."""
        return "images"

    @property
    def status(self) -> str:
        """What else there is to show."""
        return f"failed {self.failed}" if self.failed else ""


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

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from vlm_adapters.bulk import Extract, open_prompts, read_results, run_bulk
        >>> with TemporaryDirectory() as folder:
        ...     index = run_bulk(Extract("tiny-llava"), open_prompts("scenes:count=3,seed=4"), folder)
        ...     found = {item.id: row["fine.attention"].shape for item, row in read_results(folder)}
        >>> index.items, len(index.failed), found["scene-4-0"]  # phrases, layers, heads, h, w
        (3, 0, (3, 6, 8, 16, 16))
    """
    run = BulkRun.of(task, source, folder, settings)
    with run.held() if process.is_first else nullcontext():
        process.wait()  # until the first holds the folder
        _compute(run, process, report)
        process.wait()  # until all shards are there
        if process.is_first:
            run.finish()
        process.wait()
        return BulkIndex.read(run.folder)


def _compute(run: BulkRun, process: Process, report: Callable[[BulkProgress], None]) -> None:
    """Compute what is missing of the shards of this process."""
    shards = run.manifest.shards
    share = range(process.index, len(shards), process.count)
    missing = run.missing(share)
    total = sum(len(shards[number]) for number in share)
    progress = BulkProgress(total - sum(len(shards[number]) for number in missing), total, 0)
    _LOG.info("%d of %d shards are left", len(missing), len(share))
    report(progress)

    def tell(items: int, failed: int) -> None:
        nonlocal progress
        progress = BulkProgress(progress.items + items, total, progress.failed + failed)
        report(progress)

    with closing(run.compute(missing, tell)) as written:
        for _ in written:
            pass


class ShardWorker:
    """Computes shards of a run for whatever hands out their numbers, such as an actor pool of Ray Data.

    Args:
        run: The run, whose model is loaded here when the first shard comes.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from vlm_adapters.bulk import BulkRun, Ground, ShardWorker, open_prompts
        >>> with TemporaryDirectory() as folder:
        ...     run = BulkRun.of(Ground("tiny-llava"), open_prompts("scenes:count=3,seed=4"), folder)
        ...     with run.held():
        ...         done = ShardWorker(run)({"shard": run.missing()})
        ...         index = run.finish()
        >>> done["items"].tolist(), index.items
        ([3], 3)
    """

    def __init__(self, run: BulkRun) -> None:
        self.run = run

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Compute the shards with the numbers in the column `shard`.

        Returns:
            The column, and for every shard how many `items` it has and how many images `failed`.
        """
        numbers = [int(number) for number in batch["shard"]]
        written = list(self.run.compute(numbers))
        return {
            "shard": np.array(numbers),
            "items": np.array([len(shard.items) for shard in written]),
            "failed": np.array([len(shard.failed) for shard in written]),
        }
