"""SIGTERM and Ctrl-C unwind a command as an exception does, and neither is lost."""

from __future__ import annotations

import _thread
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED_EXIT, SIGTERM_EXIT = 130, 143
"""What a shell says of a process that SIGINT or SIGTERM ended."""


class InterruptedCommandError(KeyboardInterrupt):
    """Ctrl-C."""


class TerminatedCommandError(KeyboardInterrupt):
    """SIGTERM; whatever lets Ctrl-C through lets it through."""


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Within, SIGTERM raises an exception, as Ctrl-C does, and neither is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raising(TerminatedCommandError))}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller, or the shell, ignores it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raising(InterruptedCommandError))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raising(kind: type[KeyboardInterrupt]) -> Callable[[int, object], None]:
    """A handler that raises, and raises again if the exception dies before the end of the command.

    C code may drop an exception that is raised in a call of its own, as modules do that Cython made while they are
    imported.
    """

    def handle(number: int, _: object) -> None:
        raise watched(number)

    def watched(number: int) -> KeyboardInterrupt:
        error = kind()
        weakref.finalize(error, _raise_later, number, handle).atexit = False
        return error

    return handle


def _raise_later(number: int, handler: object) -> None:
    # from another thread: where an exception dies, another one would be dropped, too
    later = threading.Timer(0.05, _raise_again, (number, handler))
    later.daemon = True
    later.start()


def _raise_again(number: int, handler: object) -> None:
    if signal.getsignal(number) is handler:  # else the command has ended
        _thread.interrupt_main(signal.Signals(number))
