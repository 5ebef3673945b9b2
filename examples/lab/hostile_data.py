"""Open hostile data files and images through the public doors, each in a process of its own under limits.

    python examples/lab/hostile_data.py [--seed N] [--report FILE]

A case holds if it ends in an error of `vlm_adapters.errors` (in one line on the command line), or is read; where only
one of them is right, in that. It takes at most 5 seconds of processor time and 1 GiB of memory above the process's own
start, and never leaves a traceback. What `adapters data convert` writes must pass `adapters data check`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hostile_bombs import bombs, pictures
from hostile_files import Case, damaged, encodings, odd_values, sources, special_files, write_sound
from report import write_report

import vlm_adapters.data.check
import vlm_adapters.data.convert  # noqa: F401 - a child forks with all imports done
from vlm_adapters import AdapterError, load_image, open_dataset
from vlm_adapters.cli import main as adapters

SECONDS, MEBIBYTES = 5, 1024
LONGEST_WAIT = 60
"""Seconds on the clock after which a case counts as hanging: other work may share the processor."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: The case.
        door: Where it was given.
        what: `error`, `read`, or what went wrong.
        message: The message of the error.
        seconds: Seconds of processor time.
        mebibytes: Memory above the start of the process.
    """

    case: Case
    door: str
    what: str
    message: str
    seconds: float
    mebibytes: float

    @property
    def holds(self) -> bool:
        """Whether it ended as it must, within the limits."""
        right = self.what in ("error", "read") if self.case.must is None else self.what == self.case.must
        return right and self.seconds <= SECONDS and self.mebibytes <= MEBIBYTES


def doors_of(case: Case, number: int) -> str:
    """The door that a case is given to: the image door, or one of three by turns."""
    return "image" if case.form == "image" else ("open", "check", "convert")[number % 3]


def run(case: Case, door: str, folder: Path) -> Outcome:
    """Make a case in a folder, and give it to a door in a process of its own."""
    write_sound(case.form, folder)
    case.write(folder)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _in_child(case, door, folder, writer)
    os.close(writer)
    content = _read(reader, child)
    _, status, usage = os.wait4(child, 0)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = max(0.0, (usage.ru_maxrss - start) / 1024)
    seconds = usage.ru_utime + usage.ru_stime
    what, message = json.loads(content) if content else (_ended(status), "")
    return Outcome(case, door, what, message, seconds, used)


def _read(reader: int, child: int) -> bytes:
    content, until = b"", time.monotonic() + LONGEST_WAIT
    while select.select([reader], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        content += part
        if not part:
            break
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    return content


def _ended(status: int) -> str:
    number = os.waitstatus_to_exitcode(status)
    return "hang" if number == -signal.SIGKILL else f"crash ({number})"


def _in_child(case: Case, door: str, folder: Path, writer: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEBIBYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (4 * SECONDS, 4 * SECONDS))
    try:
        result = _outcome(door, case.source_in(folder), folder)
    except MemoryError:
        result = ("memory", "")
    except BaseException:  # noqa: BLE001 - whatever comes out is what is looked for
        result = ("traceback", traceback.format_exc()[-2000:])
    os.write(writer, json.dumps([result[0], result[1][:2000]]).encode())
    os._exit(0)


def _outcome(door: str, source: str, folder: Path) -> tuple[str, str]:
    if door in ("check", "convert"):
        return _command(door, source, folder)
    try:
        if door == "image":
            load_image(source)
        else:
            for _ in open_dataset(source):
                pass
    except AdapterError as error:
        return "error", str(error)
    return "read", ""


def _command(door: str, source: str, folder: Path) -> tuple[str, str]:
    out = folder.parent / "out"
    commands = {"check": [["check", source]], "convert": [["convert", source, "--out", str(out)], ["check", str(out)]]}
    for number, command in enumerate(commands[door]):
        code, printed = _adapters(command, folder.parent / "printed")
        if "Traceback" in printed or code not in (0, 1):
            return "traceback", printed[-2000:]
        if code == 1 and number:
            return "converted, but its own check fails", printed[-2000:]
        if code == 1:
            return "error", printed
    return "read", ""


def _adapters(command: Sequence[str], file: Path) -> tuple[int, str]:
    """Run the command line with everything that it prints in a file."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = ["adapters", "data", *command]
    try:
        adapters()
    except SystemExit as stop:
        code = int(stop.code or 0)
    sys.stdout.flush()
    return code, file.read_text(encoding="utf-8", errors="replace")


def all_cases(seed: int) -> list[Case]:
    """Every case; those of values, damage and images depend on the seed."""
    files = [*odd_values(160, seed), *damaged(40, seed), *special_files(), *encodings()]
    return [*files, *bombs(), *sources(), *pictures(seed)]


def main() -> None:
    """Run the cases and print what failed and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="run the cases whose name holds this")
    parser.add_argument("--every", type=int, default=1, help="run every N-th case, from the seed on")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    outcomes = []
    for number, case in enumerate(all_cases(arguments.seed)):
        if arguments.only not in case.name or (number - arguments.seed) % arguments.every:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(case, doors_of(case, number), Path(folder) / "set")
        outcomes.append(outcome)
        if not outcome.holds:
            print(
                f"FAILED {case.form} {outcome.door}: {case.name}: {outcome.what} (must {case.must}), "
                f"{outcome.seconds:.1f} s, {outcome.mebibytes:.0f} MiB: {outcome.message[-600:]}"
            )
    counts = Counter(outcome.what for outcome in outcomes)
    numbers = {
        "inputs": len(outcomes),
        "held": sum(outcome.holds for outcome in outcomes),
        "typed errors": counts.pop("error", 0),
        "read": counts.pop("read", 0),
        "anything else": sum(counts.values()),
        "most seconds of processor time": round(max(outcome.seconds for outcome in outcomes), 1),
        "most MiB above the start": round(max(outcome.mebibytes for outcome in outcomes)),
        "by door": dict(Counter(outcome.door for outcome in outcomes)),
    }
    for name, value in numbers.items():
        print(f"{name}: {value}")
    if arguments.report:
        write_report(arguments.report, numbers)
    sys.exit(numbers["held"] != numbers["inputs"])


if __name__ == "__main__":
    main()
