"""Where a model lives and in which precision: what people write, and what a loaded model says."""

from __future__ import annotations

import torch
from torch import nn

from vlm_adapters.errors import OptionError
from vlm_adapters.registry.load_options import dtype_name

_BYTES_OF_HALF = 2
"""Smaller floating types are packed weights, in which nothing is computed."""


def resolve_device(device: str | int | torch.device) -> torch.device:
    """The device that a caller means.

    Args:
        device: `"auto"` takes the accelerator where there is one, else the CPU; else any name or number of torch.

    Raises:
        OptionError: It is unknown, or not there.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator or torch.device("cpu")
    place = device_named(device)
    if place.type in ("cpu", "meta"):
        return place
    count = torch.accelerator.device_count() if accelerator and place.type == accelerator.type else 0
    if (place.index or 0) >= count:
        found = f"{torch.accelerator.device_count()} x {accelerator.type}" if accelerator else "no accelerator"
        raise OptionError(f"The device {str(place)!r} is not there; found {found}. Use auto or cpu.")
    return place


def device_named(device: str | int | torch.device) -> torch.device:
    """A device by its name or number, here or not.

    Raises:
        OptionError: torch knows none of this name.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"Unknown device {device!r}. Use auto, cpu, cuda, cuda:1, mps, ...") from error


def resolve_dtype(dtype: str | torch.dtype, *, on_cpu: bool) -> str | torch.dtype:
    """The precision that a caller means, as transformers takes it.

    Args:
        dtype: `"auto"` takes the checkpoint's own on an accelerator and float32 on a CPU; else a name, or torch's own.
        on_cpu: Whether the model will live on the CPU alone.

    Raises:
        OptionError: It is unknown, or weights cannot be computed with in it.
    """
    if dtype == "auto":
        return torch.float32 if on_cpu else "auto"
    found = getattr(torch, dtype_name(dtype), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise OptionError(f"Unknown dtype {dtype!r}. Use auto, float32, bfloat16 (bf16) or float16 (fp16).")
    if not found.is_floating_point or found.itemsize < _BYTES_OF_HALF:
        raise OptionError(
            f"A model cannot compute in {dtype!r}. Use auto, float32, bfloat16 or float16; for weights of fewer bits "
            "give quantization_config='nf4' or 'int8'."
        )
    return found


def input_device(model: nn.Module) -> torch.device:
    """Where a model takes its tokens, and so where results live.

    Weights that are offloaded say `meta`, where tensors have no values: the hook that brings them says where to.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]  # every model of transformers has it
    hook = getattr(embedding, "_hf_hook", None)
    hooks = getattr(hook, "hooks", (hook,))
    places = (getattr(each, "execution_device", None) for each in hooks)
    place = next((place for place in places if place is not None), None)
    if place is None:
        place = next((weight.device for weight in embedding.parameters()), "cpu")
    found = torch.device(place)
    return torch.device("cpu") if found.type == "meta" else found


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """The precision in which a model takes pixels: that of its first weights that are not quantised."""
    floating = (
        weight.dtype
        for weight in model.parameters()
        if weight.dtype.is_floating_point and weight.dtype.itemsize >= _BYTES_OF_HALF
    )
    return next(floating, torch.float32)


def is_fixed(model: nn.Module) -> bool:
    """Whether a model stays where it was loaded, because it is mapped over devices or quantised."""
    return bool(getattr(model, "hf_device_map", None)) or getattr(model, "hf_quantizer", None) is not None
