"""Work that is done ahead of its use: in a few threads, in order, and never further than memory allows."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 4
"""More threads than this wait for each other: Python runs one at a time between decoding and resizing."""


def default_workers() -> int:
    """How many threads work ahead in this process: one core is left for the model, and processes share a machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return max(1, min(_MOST_WORKERS, cores // processes - 1))


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, most: int
) -> Generator[Result]:
    """Apply a function to items in threads, ahead of whoever takes the results.

    Args:
        function: Is called by several threads at once. Its error is raised when its result would be taken.
        items: Taken one after the other by the caller's thread. Their error is raised after the results before it.
        workers: Number of threads; with 0 the caller's thread does the work when a result is taken.
        most: How many items are worked on, or done, before they are taken.

    Yields:
        The results, in the order of the items. Closing the iterator drops what was not begun.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    pending: deque[Future[Result]] = deque()
    source, failure = iter(items), None
    try:
        while failure is None:
            try:
                item = next(source)
            except StopIteration:
                break
            except BaseException as error:  # noqa: BLE001 - Ctrl-C, too: what was done before is not lost
                failure = error
            else:
                pending.append(pool.submit(function, item))
                if len(pending) > most:
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
