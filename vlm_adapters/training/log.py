"""The log of a run: a line of JSON per step, and the same for TensorBoard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from vlm_adapters.data.files import whole_file

LOG_FILE = "log.jsonl"


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

    Args:
        out: Folder of the run.
        step: Steps done; lines of later ones, which an earlier run wrote, are removed.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / LOG_FILE
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        with whole_file(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")
        self._events = SummaryWriter(out / "tensorboard", purge_step=step + 1 if step else None)

    def step(self, step: Step) -> None:
        """Log a step."""
        values = {"loss": step.loss, "learning_rate": step.learning_rate, "grad_norm": step.grad_norm}
        self._write(step.number, values)

    def validation(self, step: int, mean_iou: float) -> None:
        """Log a validation's mean IoU."""
        self._write(step, {"validation_mean_iou": mean_iou})

    def _write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def read_log(out: Path) -> list[dict[str, float]]:
    """Every line of a run's log, in order."""
    return [json.loads(line) for line in (out / LOG_FILE).read_text("utf-8").splitlines()]


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62  # a line that a kill cut off
