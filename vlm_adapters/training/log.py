"""What a run tells while it goes: a line of JSON per step, and the same for TensorBoard."""

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
        number: Of the step, from 1.
        total: Steps of the whole run.
        loss: Mean over the phrases of the batch, before the step.
        rate: Learning rate.
        norm: Of the gradient, before it was clipped.
        seconds: Since the step before, with what was done in between.
    """

    number: int
    total: int
    loss: float
    rate: float
    norm: float
    seconds: float


class RunLog:
    """Writes `log.jsonl` and TensorBoard's events.

    Args:
        out: Folder of the run.
        step: Steps done; what an earlier run told of later ones is taken back.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / LOG_FILE
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        with whole_file(self._path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step), "utf-8")
        self._events = SummaryWriter(out / "tensorboard", purge_step=step + 1 if step else None)

    def step(self, step: Step) -> None:
        """Tell what a step did."""
        self._write({"step": step.number, "loss": step.loss, "rate": step.rate, "norm": step.norm})

    def validation(self, step: int, mean_iou: float) -> None:
        """Tell a validation's mean IoU."""
        self._write({"step": step, "validation_mean_iou": mean_iou})

    def _write(self, told: dict[str, float]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        for name, value in told.items():
            if name != "step":
                self._events.add_scalar(name, value, int(told["step"]))
        self._events.flush()


def read_log(out: Path) -> list[dict[str, float]]:
    """Everything that a run told, in its order."""
    return [json.loads(line) for line in (out / LOG_FILE).read_text("utf-8").splitlines()]


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62  # a line that a kill cut off
