"""The processes that share the work of a run, started by `accelerate launch`, `torchrun` or `mpirun`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from vlm_adapters.errors import OptionError, OutputError, PluginError

_LONGEST_WAIT = timedelta(days=30)
"""How long a process may wait for the others: their shares can differ by more than torch's minutes.

One that has ended is noticed at once.
"""


_COUNT_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started; accelerate reads the same variables."""


@dataclass(frozen=True)
class Process:
    """One of the processes that share the work of a run.

    Attributes:
        index: Index of the process, from 0; the first one writes the results.
        count: Number of processes.
        device: Device for the model of this process: each of several processes has its own accelerator.
        wait: Waits until all processes are here.
        finish: Waits until all processes have called it, and then leaves their group.
    """

    index: int = 0
    count: int = 1
    device: str = "auto"
    wait: Callable[[], None] = lambda: None
    finish: Callable[[], None] = lambda: None

    @classmethod
    def this(cls, device: str = "auto") -> Process:
        """Find out from the launcher's environment variables; without them there is one process.

        Args:
            device: Device that was asked for.

        Raises:
            PluginError: There are several processes, and accelerate is not installed or does not see all of them.
            OptionError: The device is one accelerator, named by its number, and there are several processes.
        """
        count = next((int(os.environ[name]) for name in _COUNT_VARIABLES if name in os.environ), 1)
        if count == 1:
            return cls(device=device)
        if ":" in device:
            raise OptionError(
                f"device={device} is for one process, and {count} were started, which take one each. Take "
                f"device={device.partition(':')[0]}."
            )
        return _joined(count, on_cpu=device == "cpu" or not torch.accelerator.is_available())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    def sum(self, numbers: Tensor) -> Tensor:
        """Sum a tensor over all processes; each gets the sum."""
        if self.count > 1:
            torch.distributed.all_reduce(numbers)
        return numbers

    def gather(self, numbers: Sequence[float]) -> list[float]:
        """The numbers of all processes, in their order; each gets them all, rounded to float32."""
        counts = torch.zeros(self.count, dtype=torch.long, device=self.device if self.count > 1 else "cpu")
        counts[self.index] = len(numbers)
        starts = [0, *self.sum(counts).cumsum(0).tolist()]
        found = torch.zeros(starts[-1], device=counts.device)
        found[starts[self.index] : starts[self.index + 1]] = torch.tensor(numbers, device=counts.device)
        gathered: list[float] = self.sum(found).tolist()
        return gathered


@cache
def _joined(count: int, *, on_cpu: bool) -> Process:
    """Join the other processes, once."""
    try:
        from accelerate import PartialState  # noqa: PLC0415 - an extra, needed by several processes only
    except ImportError as error:
        raise PluginError(
            f"{count} processes were started, and they need accelerate to share the work. Install "
            "'vlm-adapters[train]', or start one process."
        ) from error
    state = PartialState(cpu=on_cpu)
    if state.num_processes != count:
        raise PluginError(
            f"{count} processes were started, and accelerate sees {state.num_processes}: every sample would count "
            "several times. Start them with `accelerate launch` or `torchrun`."
        )

    # a separate group, so that a launcher whose processes never meet is noticed soon
    waiting = cast("ProcessGroup", torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT))

    def wait() -> None:
        try:
            torch.distributed.barrier(waiting)
        except RuntimeError as error:
            raise OutputError(
                f"Another of the {count} processes that share the work has ended before its share was done. What is "
                "finished stays. Start them again, as many as you like: they resume where these stopped."
            ) from error

    def finish() -> None:
        wait()
        state.destroy_process_group()

    return Process(state.process_index, count, "cpu" if on_cpu else str(state.device), wait, finish)


ALONE = Process()
"""The one process of a run that no launcher started."""
