"""A stage of training on a GPU, or in one process or several of torchrun, whose state is kept in a file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
LEARNING_RATE, WARM_UP = 1e-3, 100
REPORT_EVERY, SAVE_EVERY = 20, 100


def rate_at(step: int, steps: int) -> float:
    """Warm-up, flat, and a cosine's fall to nothing over the last 60 %."""
    late = max(0.0, (step / steps - 0.4) / 0.6)
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, late)))


def moved(batch: T, device: torch.device) -> T:
    """A batch with its tensors on a device: a tensor, a tuple or a dataclass of such."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        return type(batch)(moved(part, device) for part in batch)
    if is_dataclass(batch):
        return replace(batch, **{field.name: moved(getattr(batch, field.name), device) for field in fields(batch)})
    return batch


class Stage:
    """A stage of training whose state is kept in a file.

    Args:
        trainee: What is trained, on its device.
        parameters: Which of its parameters.
        file: The state.
        steps: How many in all.
        minutes: If given, the number of steps is that which fits into them, by the pace of the first 100.
    """

    def __init__(
        self,
        trainee: nn.Module,
        parameters: Sequence[nn.Parameter],
        file: Path,
        steps: int,
        minutes: float | None = None,
    ) -> None:
        self._trainee, self._parameters, self._file, self._steps = trainee, parameters, file, steps
        self._minutes, self._device = minutes, parameters[0].device
        fused = self._device.type == "cuda"
        self._optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=fused)
        self.done = 0
        if file.exists():
            saved = torch.load(file, weights_only=True, map_location=self._device)
            trainee.load_state_dict(saved["trainee"])
            self._optimizer.load_state_dict(saved["optimizer"])
            self.done, self._steps, self._minutes = saved["step"], saved["steps"], None

    def run(self, batches: Iterable[T], losses: Callable[[T], tuple[Tensor, dict[str, Tensor]]]) -> None:
        """Descend the losses of batches, one step each.

        Args:
            batches: Without an end, on the CPU.
            losses: Gives the loss of a batch on the trainee's device, and figures to watch.
        """
        batch_of = iter(batches)
        watched, started, first = None, time.monotonic(), self.done
        while self.done < self._steps:
            for group in self._optimizer.param_groups:
                group["lr"] = rate_at(self.done, self._steps)
            batch = moved(next(batch_of), self._device)
            with torch.device(self._device), torch.autocast(self._device.type, torch.bfloat16):
                loss, figures = losses(batch)
            loss.backward()
            self._average_gradients()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.done += 1
            values = torch.stack([value.detach().float() for value in figures.values()])
            watched = values if watched is None else watched.lerp(values, 0.05)
            if self.done % REPORT_EVERY and self.done != self._steps:
                continue
            pace = (time.monotonic() - started) / (self.done - first)
            if self.done == REPORT_EVERY:  # the first steps are slow
                started, first = time.monotonic(), self.done
            if self._minutes and self.done == WARM_UP:
                self._steps = self.done + int(self._minutes * 60 / pace)
            if dist.get_rank() == 0:
                line = "  ".join(f"{name} {value:.3f}" for name, value in zip(figures, watched.tolist(), strict=True))
                print(f"{self.done:5d}/{self._steps} {pace:.3f} s  {line}", flush=True)
                if self.done % SAVE_EVERY == 0 or self.done == self._steps:
                    self._save()

    def _save(self) -> None:
        saved = {
            "trainee": self._trainee.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.done,
            "steps": self._steps,
        }
        torch.save(saved, self._file.with_suffix(".new"))
        self._file.with_suffix(".new").replace(self._file)

    def _average_gradients(self) -> None:
        if dist.get_world_size() == 1:
            return
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient) / dist.get_world_size())
