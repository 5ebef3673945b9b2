"""The log of a run: a line of JSON per step, and the same for a tracker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vlm_adapters.data.files import append_line, output_errors, whole_file
from vlm_adapters.training.checkpoint import RunState
from vlm_adapters.training.events import Events
from vlm_adapters.training.trackers import Tracked, start_tracker

LOG_FILE = "log.jsonl"
VALIDATION = "validation_mean_iou"


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

    @property
    def done(self) -> int:
        """The same by the name of every `Progress`."""
        return self.number

    @property
    def unit(self) -> str:
        """What is counted."""
        return "steps"

    @property
    def status(self) -> str:
        """What else there is to show."""
        return f"loss {self.loss:.3f}"


class RunLog:
    """Writes `log.jsonl`, and sends the same to the tracker that the recipe names.

    What an earlier process wrote after its last checkpoint will be done again: it is taken back in the file and in
    TensorBoard's events. Other trackers keep what they have.

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
            self._tracker = _tracker(state, out, kept)

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
        if self._tracker:
            with output_errors(self._path):
                self._tracker.finish()

    def _write(self, content: dict[str, float]) -> None:
        append_line(self._path, _line(content))
        if self._tracker:
            with output_errors(self._path):
                numbers = {name: value for name, value in content.items() if name != "step"}
                self._tracker.log(numbers, step=int(content["step"]))


def _tracker(state: RunState, out: Path, kept: list[dict[str, float]]) -> Tracked | None:
    if state.recipe.tracker == "none":
        return None
    if state.recipe.tracker == "tensorboard":  # accelerate's takes back nothing when a run is resumed
        return Events(out / "tensorboard", kept)
    return start_tracker(state.recipe.tracker, out, state.recipe.model_dump(mode="json"))


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
