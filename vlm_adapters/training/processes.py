"""The processes of a run, those of Hugging Face accelerate."""

from __future__ import annotations

from accelerate import PartialState

from vlm_adapters.errors import OptionError, RecipeError
from vlm_adapters.hf.placement import resolve_device


def join_processes(device: str) -> PartialState:
    """Join the processes that were launched together, each with its device.

    Args:
        device: `auto` or a device of torch; one that is named by its number is for a single process.

    Raises:
        RecipeError: The device is not there, or several processes are to share one.
    """
    try:
        found = resolve_device(device)
    except OptionError as error:
        raise RecipeError(f"The recipe asks for device={device}. {error}") from error
    processes = PartialState(cpu=device == "cpu")
    if found.index is not None:
        if processes.num_processes > 1:
            raise RecipeError(
                f"The recipe asks for device={device}, and {processes.num_processes} processes were started, which "
                f"take one each. Take device={found.type}."
            )
        processes.device = found
    return processes
