"""What the page lets a stranger do: how much, how often, and how many at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from vlm_adapters.errors import AdapterError

T = TypeVar("T")
_MINUTE = 60.0


class RefusedError(AdapterError):
    """A request is refused.

    Attributes:
        status: Status of HTTP that says why: 404, 413, 415, 429 or 503.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class WebLimits:
    """What a visitor of the page may ask for.

    Attributes:
        max_file_bytes: Largest image file.
        max_pixels: Largest product of width and height of an image.
        max_text: Longest sentence or question, in characters.
        max_phrases: Most phrases of a sentence.
        max_new_tokens: Where an answer is cut off.
        per_minute: Most groundings of one address in a minute.
        most_waiting: Most groundings that wait for the model.
        most_results: Most results that are kept for their pages; the oldest goes first.
        most_result_bytes: Most memory of these. The newest is kept however large it is.
    """

    max_file_bytes: int = 16 * 1024**2
    max_pixels: int = 25_000_000
    max_text: int = 2_000
    max_phrases: int = 24
    max_new_tokens: int = 128
    per_minute: int = 30
    most_waiting: int = 8
    most_results: int = 32
    most_result_bytes: int = 1024**3

    @property
    def max_body_bytes(self) -> int:
        """Longest request: the image in base64, which takes four bytes for three, and the words, escaped at worst."""
        return self.max_file_bytes * 4 // 3 + 12 * self.max_text + 10_000


class RateLimit:
    """Counts the groundings of every address in the last minute.

    Args:
        per_minute: Most of one address.
        clock: Gives the time in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Count one more.

        Raises:
            RefusedError: There were as many as are allowed.
        """
        now = self._clock()
        for known, times in list(self._times.items()):  # as many as came in a minute: nothing grows
            while times and times[0] <= now - _MINUTE:
                times.popleft()
            if not times:
                del self._times[known]
        times = self._times.setdefault(address, deque())
        if len(times) >= self.per_minute:
            wait = times[0] + _MINUTE - now
            raise RefusedError(
                f"{self.per_minute} groundings a minute are allowed, and there were as many. Wait {wait:.0f} seconds.",
                429,
            )
        times.append(now)


class ModelQueue:
    """Lets one after the other use the model, in the order in which they came."""

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._count = 0
        self._lock = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Run what uses the model, in a thread, when it is its turn.

        Raises:
            RefusedError: Too many wait already.
        """
        if self._count > self.most_waiting:  # one is computed, the others wait
            raise RefusedError(f"The model is busy, and {self.most_waiting} others wait. Try again in a minute.", 503)
        self._count += 1
        try:
            async with self._lock:
                return await run_in_threadpool(work)
        finally:
            self._count -= 1
