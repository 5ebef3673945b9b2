"""Running the command line many times, each in a process of its own that may be killed, and comparing what is left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MODEL = "tiny-qwen2_5_vl"
CACHE = f"model={MODEL} train=scenes:count=140,seed=3 validation=null cache=cache"
TRAIN = f"model={MODEL} train=scenes:count=24,seed=3 validation=scenes:count=8,seed=6 cache=cache epochs=2"
COMMANDS = {
    "cache build": f"cache build scenes {CACHE}",
    "train": f"train scenes {TRAIN} decoder.base_width=4 sheet_samples=2 --out run",
    "evaluate": f"evaluate {MODEL} scenes:count=12,seed=4 --protocol packed --batch-size 2 --out evaluation",
    "data convert": "data convert scenes:count=60,seed=4 --out set",
    "extract": f"extract scenes:count=40,seed=4 --model {MODEL} --shard-size 6 --batch-size 4 --out extracted",
    "ground": f"ground scenes:count=24,seed=4 --model {MODEL} --shard-size 4 --batch-size 2 --out grounded",
    "attend": f"attend scenes:count=24,seed=4 --model {MODEL} --shard-size 4 --batch-size 2 --out attended",
}
PREPARED = {"train": f"cache build scenes {TRAIN}"}
"""What has to be there before a command: its own work is then what is interrupted."""

_FILE_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "shutil.rmtree")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Exit code; negative where a signal ended it.
        seconds: How long it ran.
        events: Number of its file events, where they were counted.
        errors: What it wrote to stderr.
    """

    code: int
    seconds: float
    events: int
    errors: str


def prepare() -> None:
    """Import what the commands import, once: the processes are forked from this one."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch  # noqa: PLC0415 - after the environment is set

    import vlm_adapters.bulk  # noqa: PLC0415
    import vlm_adapters.cli.evaluate_command  # noqa: PLC0415
    from vlm_adapters import GroundedVLM, evaluate, load_adapter, train  # noqa: PLC0415

    torch.set_num_threads(1)
    _ = GroundedVLM, evaluate, load_adapter, train, vlm_adapters.cli.evaluate_command


def run(folder: Path, command: str, *, at_event: int = 0, after: float | None = None) -> Ended:
    """Run a command in a folder.

    Args:
        folder: Working folder, so that paths in what is written are the same in every trial.
        command: Command line after `adapters`.
        at_event: Kill it right before its file event of this number; 0 for never.
        after: Kill it after so many seconds; None for never.
    """
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        _work(folder, command, at_event)
    if after is not None:
        while (
            time.monotonic() - began < after
            and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    seconds = time.monotonic() - began
    counted = folder.with_name(f"{folder.name}.events")
    events = int(counted.read_text() or 0)  # empty where it was killed
    errors = folder.with_name(f"{folder.name}.stderr").read_text(encoding="utf-8", errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), seconds, events, errors)


def _work(folder: Path, command: str, at_event: int) -> None:
    """Run the command line in the forked process, and end it."""
    from vlm_adapters.cli import main  # noqa: PLC0415 - imported by `prepare`

    counted = folder.with_name(f"{folder.name}.events").open("w")
    with folder.with_name(f"{folder.name}.stderr").open("w") as errors, Path(os.devnull).open("w") as nothing:
        os.dup2(errors.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
    os.chdir(folder)
    place, number = str(Path.cwd()), 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            path = arguments[0]
        else:
            writes, path = event in _FILE_EVENTS, arguments[0] if arguments else ""
        if writes and isinstance(path, str | Path) and os.path.abspath(path).startswith(f"{place}{os.sep}"):  # noqa: PTH100
            number += 1
            if number == at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    sys.argv = ["adapters", *shlex.split(command)]
    code = 1
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        counted.write(str(number))
        counted.close()
        sys.stderr.flush()
        os._exit(code)


def content(folder: Path) -> dict[str, object]:
    """Everything in a folder by its path: digests, scalars of TensorBoard, cards without their date."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file() and path.parent.name != "tensorboard":
            found[name] = _digest(path)
        elif path.is_dir() and path.name == "tensorboard":
            found[name] = scalars(path)
    return found


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """The scalars that TensorBoard shows: tag, step, value."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(tag, one.step, one.value) for tag in sorted(events.Tags()["scalars"]) for one in events.Scalars(tag)]


def leftovers(folder: Path) -> list[str]:
    """What no command leaves in its folder: hidden files and folders."""
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob(".*"))]


def _digest(path: Path) -> str:
    text = path.read_bytes()
    if path.name == "card.json":
        text = json.dumps({key: value for key, value in json.loads(text).items() if key != "date"}).encode()
    elif path.name == "card.md":
        text = b"\n".join(line for line in text.splitlines() if not line.startswith(b"| date "))
    return hashlib.sha256(text).hexdigest()
