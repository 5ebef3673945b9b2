"""Run a trial in a child process of its own and tell how it ended: its error, its time and its memory."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from vlm_adapters.errors import AdapterError

SECONDS, MEBIBYTES = 5.0, 1024.0
"""What a hostile input may cost: processor time, and memory above that of the process before."""
_KILL_SECONDS, _WALL_SECONDS, _ADDRESS_SPACE = 8, 20.0, 8 << 30


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        kind: `"accepted"`, `"typed"` (an `AdapterError`), `"raw"` (any other error) or `"killed"`.
        message: The error in one line; empty for an accepted input.
        seconds: Processor time.
        mebibytes: Most memory above that at the start.
    """

    kind: str
    message: str
    seconds: float
    mebibytes: float

    @property
    def holds(self) -> bool:
        """Whether the input was accepted or refused with a typed error, within the limits."""
        return self.kind in ("accepted", "typed") and self.seconds <= SECONDS and self.mebibytes <= MEBIBYTES


def in_child(trial: Callable[[], object]) -> Outcome:
    """Run a trial in a fork of this process, which should have one thread and its imports done.

    The child is killed after 8 seconds of processor time or 20 of any, and may ask for 8 GiB of address space.
    """
    reading, writing = os.pipe()
    resident = _resident_kibibytes()
    process = os.fork()
    if not process:
        os.close(reading)
        _run(trial, writing)
    os.close(writing)
    text = _read(reading, process)
    _, _, usage = os.wait4(process, 0)
    kind, _, message = text.partition(" ")
    return Outcome(
        kind=kind or "killed",
        message=message,
        seconds=round(usage.ru_utime + usage.ru_stime, 2),
        mebibytes=round(max(usage.ru_maxrss - resident, 0) / 1024, 1),
    )


def _run(trial: Callable[[], object], writing: int) -> None:
    """The child: never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_KILL_SECONDS, _KILL_SECONDS))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    outcome = "accepted "
    try:
        trial()
    except AdapterError as error:
        outcome = f"typed {type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the trial is after
        outcome = f"raw {type(error).__name__}: {str(error)[:300]}"
    os.write(writing, " ".join(outcome.split())[:600].encode("utf-8", "replace"))
    os._exit(0)


def _read(reading: int, process: int) -> str:
    """What the child wrote before it ended; it is killed when its time is over."""
    end, content = time.monotonic() + _WALL_SECONDS, b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
            if not (piece := pipe.read(1 << 16)):
                return content.decode("utf-8", "replace")
            content += piece
    os.kill(process, signal.SIGKILL)
    return ""


def _resident_kibibytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - read at every trial
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
