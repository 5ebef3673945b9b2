"""The log of a run: a line of JSON per step, and the same for TensorBoard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.tensorboard import SummaryWriter

from vlm_adapters.data.files import append_line, output_errors, whole_file
from vlm_adapters.training.checkpoint import RunState

LOG_FILE = "log.jsonl"
VALIDATION = "validation_mean_iou"
_EVENTS_SUFFIX = ".vlm-adapters"
_EVENTS_FILE = re.compile(r"events\.out\.tfevents\.\d{10,}\..+\.\d+\.\d+" + re.escape(_EVENTS_SUFFIX))


@dataclass(frozen=True)
class Step:
    """What one step did, over all processes.

    Attributes:
        number: Number of the step, from 1.
        total: Steps of the whole run.
        loss: Mean over the phrases of the batch, before the step.
        learning_rate: Learning rate of the step.
        grad_norm: Norm of the gradient, before it was clipped.
        seconds: Time since the step before, with what was done in between.
    """

    number: int
    total: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


class RunLog:
    """Writes `log.jsonl` and TensorBoard's events.

    What an earlier process wrote after its last checkpoint is taken back in both, because it will be done again.

    Args:
        out: Folder of the run.
        state: Where the run is.
    """

    def __init__(self, out: Path, state: RunState) -> None:
        self._path = out / LOG_FILE
        lines = self._path.read_bytes().splitlines() if self._path.is_file() else []
        kept = [content for line in lines if (content := _parsed(line)) and _is_done(content, state)]
        with whole_file(self._path) as temporary:
            temporary.write_bytes(b"".join(map(_line, kept)))
        with output_errors(out):
            self._events = _events(out / "tensorboard", kept)

    def step(self, step: Step) -> None:
        """Log a step."""
        self._write(
            {"step": step.number, "loss": step.loss, "learning_rate": step.learning_rate, "grad_norm": step.grad_norm}
        )

    def validation(self, step: int, mean_iou: float) -> None:
        """Log a validation's mean IoU."""
        self._write({"step": step, VALIDATION: mean_iou})

    def close(self) -> None:
        """Write what is left, and close the files."""
        with output_errors(self._path):
            self._events.close()

    def _write(self, content: dict[str, float]) -> None:
        append_line(self._path, _line(content))
        with output_errors(self._path):
            _add(self._events, content, {})
            self._events.flush()


def read_log(out: Path) -> list[dict[str, float]]:
    """Every line of a run's log, in order."""
    return [json.loads(line) for line in (out / LOG_FILE).read_text("utf-8").splitlines()]


def _line(content: dict[str, float]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, float] | None:
    """The content of a line; None for one that was cut off."""
    try:
        content: dict[str, float] = json.loads(line)
        return content if isinstance(content["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


def _is_done(content: dict[str, float], state: RunState) -> bool:
    """Whether a checkpoint says that what a line logs was done; a validation is logged before that is written."""
    return content["step"] <= ((state.validated_step or 0) if VALIDATION in content else state.step)


def _events(folder: Path, kept: list[dict[str, float]]) -> SummaryWriter:
    """Open TensorBoard's events with all that was kept, at the times it was first logged, in place of older files.

    TensorBoard's own way, a mark from which older steps are void, depends on the names of the files: a process that
    starts in the same second as the one before it may come before it there.
    """
    old = [path for path in folder.glob("events.*") if _EVENTS_FILE.fullmatch(path.name)]
    times = dict(time for path in sorted(old) for time in _times(path))
    events = SummaryWriter(folder, purge_step=0, filename_suffix=_EVENTS_SUFFIX)
    for content in kept:
        _add(events, content, times)
    events.flush()
    for path in old:
        with suppress(OSError):  # Windows, where a reader has it open: the new file makes its steps void
            path.unlink()
    return events


def _add(events: SummaryWriter, content: dict[str, float], times: dict[tuple[str, int], float]) -> None:
    step = int(content["step"])
    for name, value in content.items():
        if name != "step":
            events.add_scalar(name, value, step, walltime=times.get((name, step)))


def _times(path: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """When each scalar of a file was logged, up to where a kill cut it off."""
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield (value.tag, event.step), event.wall_time
