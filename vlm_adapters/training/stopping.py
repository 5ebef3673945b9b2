"""Stopping a run in an orderly way: by SIGTERM, as batch systems do, or by Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether the run is to stop, and by which signal.

    Attributes:
        signal: The first signal that came; None while there was none.
    """

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def raise_interrupt(self) -> None:
        """Go on with Ctrl-C, after everything was saved.

        Raises:
            KeyboardInterrupt: It was Ctrl-C.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within, SIGTERM and the first Ctrl-C only set the request; a second Ctrl-C interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals are the main thread's
        return

    def stop(number: int, _: object) -> None:
        if number == signal.SIGINT:
            if request:
                raise KeyboardInterrupt
            _LOG.warning("Stopping after this step, to save it. Ctrl-C again stops at once.")
        request.signal = request.signal or number

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
