"""Kill the commands that work for long at random times and file events, and run them again.

    python examples/lab/kills.py [--kills 60] [--report FILE]

Every trial is a real process that gets SIGKILL once or twice; half of the trials strike at a random time, half right
before a file is opened for writing, renamed, linked or removed. The same command then runs to its end, and all that is
there must equal what an unbroken run wrote: bytes of files, TensorBoard's scalars (tag, step, value), and no file more.
Takes about 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

from report import write_report
from trials import COMMANDS, PREPARED, content, leftovers, prepare, run

FINISHED = "already exists and is not an empty folder"
"""What `data convert` says where the kill came after its last rename: the set is complete."""


def trial(root: Path, command: str, unbroken: Path, seconds: float, events: int, seed: int) -> dict[str, object]:
    """Kill a command, run it again, and compare."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    folder = root / "trial"
    shutil.copytree(root / f"before {command}", folder, symlinks=True)
    strikes = []
    for _ in range(2 if rng.random() < 0.3 else 1):
        if rng.random() < 0.5:
            options: dict[str, object] = {"after": rng.uniform(0, seconds)}
        else:
            options = {"at_event": rng.randint(1, events)}
        ended = run(folder, COMMANDS[command], **options)  # type: ignore[arg-type]
        strikes.append({**options, "code": ended.code, "left": len(leftovers(folder))})
    again = run(folder, COMMANDS[command])
    expected, found = content(unbroken), content(folder)
    differing = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    result = {
        "strikes": strikes,
        "code": again.code,
        "equal": not differing and (again.code == 0 or FINISHED in again.errors),
        "differing": differing,
        "leftovers": leftovers(folder),
        "errors": again.errors[-400:] if again.code else "",
    }
    shutil.rmtree(folder)
    return result


def measure(commands: list[str], kills: int, root: Path) -> dict[str, dict[str, object]]:
    """Trials of every command."""
    found: dict[str, dict[str, object]] = {}
    for place, command in enumerate(commands):
        before, unbroken = root / f"before {command}", root / f"unbroken {command}"
        before.mkdir()
        if command in PREPARED:
            run(before, PREPARED[command])
        shutil.copytree(before, unbroken, symlinks=True)
        ended = run(unbroken, COMMANDS[command])
        if ended.code:
            raise SystemExit(f"{command} failed: {ended.errors}")
        seeds = range(place, kills, len(commands))
        trials = []
        for seed in seeds:
            trials.append(trial(root, command, unbroken, ended.seconds, ended.events, seed))
            print(command, seed, json.dumps(trials[-1]), flush=True)
        strikes = [strike for one in trials for strike in one["strikes"]]  # type: ignore[attr-defined]
        found[command] = {
            "trials": len(trials),
            "killed": sum(strike["code"] == -9 for strike in strikes),
            "with temporaries after a kill": sum(bool(strike["left"]) for strike in strikes),
            "equal after the next run": sum(bool(one["equal"]) for one in trials),
            "leftovers after the next run": sum(len(one["leftovers"]) for one in trials),  # type: ignore[arg-type]
            "file events of an unbroken run": ended.events,
        }
    return found


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="number of trials")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="which are killed")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(arguments.commands, arguments.kills, Path(folder))
    for command, row in numbers.items():
        print(f"{command:13}", ", ".join(f"{name}: {value}" for name, value in row.items()))
    if arguments.report:
        write_report(arguments.report, {"kills": numbers})


if __name__ == "__main__":
    main()
