"""A stage of training in one process or several of torchrun, whose state is kept in a file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

LEARNING_RATE, WARM_UP = 1e-3, 100
REPORT_EVERY, SAVE_EVERY = 20, 100


def rate_at(step: int, steps: int) -> float:
    """Warm-up, flat, and a cosine's fall to nothing over the last 60 %."""
    late = max(0.0, (step / steps - 0.4) / 0.6)
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, late)))


class Stage:
    """A stage of training whose state is kept in a file.

    Args:
        trainee: What is trained.
        parameters: Which of its parameters.
        file: The state.
        steps: How many in all.
    """

    def __init__(self, trainee: nn.Module, parameters: Sequence[nn.Parameter], file: Path, steps: int) -> None:
        self._trainee, self._parameters, self._file, self._steps = trainee, parameters, file, steps
        self._optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
        self.done = 0
        if file.exists():
            saved = torch.load(file, weights_only=True)
            trainee.load_state_dict(saved["trainee"])
            self._optimizer.load_state_dict(saved["optimizer"])
            self.done = saved["step"]

    def run(self, batches: Iterator[tuple[Tensor, dict[str, float]]]) -> None:
        """Descend the losses that an iterator computes, one step each."""
        watched: dict[str, float] = {}
        started = time.monotonic()
        for step in range(self.done, self._steps):
            for group in self._optimizer.param_groups:
                group["lr"] = rate_at(step, self._steps)
            with torch.autocast("cpu", torch.bfloat16):
                loss, figures = next(batches)
            loss.backward()
            self._average_gradients()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            watched |= {name: 0.95 * watched.get(name, value) + 0.05 * value for name, value in figures.items()}
            if dist.get_rank():
                continue
            if (step + 1) % REPORT_EVERY == 0:
                pace = (time.monotonic() - started) / (step + 1 - self.done)
                line = "  ".join(f"{name} {value:.3f}" for name, value in watched.items())
                print(f"{step + 1:5d} {pace:.2f} s  {line}", flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == self._steps:
                saved = {
                    "trainee": self._trainee.state_dict(),
                    "optimizer": self._optimizer.state_dict(),
                    "step": step + 1,
                }
                torch.save(saved, self._file.with_suffix(".new"))
                self._file.with_suffix(".new").replace(self._file)

    def _average_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient) / dist.get_world_size())
