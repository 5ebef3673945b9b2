"""Work ahead: in order, bounded, and errors in their turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from vlm_adapters.data.ahead import default_workers, map_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items_whoever_is_faster(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.01 * (3 - item % 4))
        return item * item

    assert list(map_ahead(slow_first, range(12), workers=workers, most=5)) == [item * item for item in range(12)]


@pytest.mark.parametrize(("workers", "most"), [(0, 4), (1, 1), (2, 3)])
def test_no_more_is_begun_than_was_allowed(workers: int, most: int) -> None:
    begun: list[int] = []
    with closing(map_ahead(begun.append, range(50), workers=workers, most=most)) as results:
        for taken in range(1, 20):
            next(results)
            time.sleep(0.002)
            assert len(begun) <= taken + (most if workers else 0)


def test_an_error_is_raised_when_its_result_would_be_taken() -> None:
    def fail_at_two(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = map_ahead(fail_at_two, range(9), workers=3, most=9)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_of_the_items_is_raised_after_the_results_before_it(kind: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise kind

    taken: list[int] = []
    with pytest.raises(kind):
        taken.extend(map_ahead(abs, items(), workers=2, most=5))
    assert taken == [0, 1, 2]


def test_closing_drops_what_was_not_begun_and_ends_the_threads() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.02)

    before = threading.active_count()
    results = map_ahead(work, range(100), workers=2, most=50)
    next(results)
    results.close()
    assert len(begun) < 10
    assert threading.active_count() == before


def test_without_workers_the_caller_works() -> None:
    threads = {*map_ahead(lambda _: threading.current_thread(), range(3), workers=0, most=2)}
    assert threads == {threading.current_thread()}


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    found = []
    for processes in ("1", "4", "16"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        found.append(default_workers())
    assert found == [4, 3, 1]
