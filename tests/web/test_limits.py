"""How often, how many at a time, and in which order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vlm_adapters.web.limits import ModelQueue, RateLimit, RefusedError


def test_an_address_has_so_many_groundings_in_any_minute() -> None:
    now = [0.0]
    rate = RateLimit(2, clock=lambda: now[0])
    rate.check("a")
    now[0] = 20.0
    rate.check("a")
    with pytest.raises(RefusedError, match=r"2 groundings a minute are allowed.*Wait 40 seconds"):
        rate.check("a")
    rate.check("b")
    now[0] = 60.0
    rate.check("a")
    with pytest.raises(RefusedError, match="Wait 20 seconds"):
        rate.check("a")


def test_the_model_is_used_by_one_after_the_other_in_their_order() -> None:
    queue, order, inside = ModelQueue(8), list[int](), threading.Semaphore(1)

    def work(number: int) -> int:
        assert inside.acquire(blocking=False), "two at a time"
        order.append(number)
        inside.release()
        return number

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(queue.run(lambda number=number: work(number)) for number in range(6)))

    assert asyncio.run(all_of_them()) == order == list(range(6))


def test_a_full_queue_refuses_and_goes_on_afterwards() -> None:
    async def trial() -> None:
        queue, opened = ModelQueue(1), threading.Event()
        running = [asyncio.create_task(queue.run(opened.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="busy, and 1 others wait") as refused:
            await queue.run(lambda: None)
        assert refused.value.status == 503
        opened.set()
        await asyncio.gather(*running)
        await queue.run(lambda: None)

    asyncio.run(trial())


def test_the_place_of_work_that_failed_is_free_again() -> None:
    async def trial() -> None:
        queue = ModelQueue(1)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await queue.run(lambda: 1 // 0)

    asyncio.run(trial())
