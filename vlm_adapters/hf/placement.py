"""The device and precision of a model: as a caller names them, and as a loaded model has them."""

from __future__ import annotations

import torch
from torch import nn

from vlm_adapters.errors import OptionError
from vlm_adapters.registry.load_options import dtype_name

_BYTES_OF_HALF = 2
"""Size of a half-precision number; smaller floating types hold packed weights, in which nothing is computed."""


def resolve_device(device: str | int | torch.device) -> torch.device:
    """Resolve the device that a caller names.

    Args:
        device: A device name or number of torch; `"auto"` takes the accelerator if there is one, else the CPU.

    Raises:
        OptionError: The device is unknown or not available.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator or torch.device("cpu")
    named = device_named(device)
    if named.type in ("cpu", "meta"):
        return named
    count = torch.accelerator.device_count() if accelerator and named.type == accelerator.type else 0
    if (named.index or 0) >= count:
        found = f"{torch.accelerator.device_count()} x {accelerator.type}" if accelerator else "no accelerator"
        raise OptionError(f"The device {str(named)!r} is not available; found {found}. Use auto or cpu.")
    return named


def device_named(device: str | int | torch.device) -> torch.device:
    """Look up a device by its name or number, available or not.

    Raises:
        OptionError: torch has no device of this name.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"Unknown device {device!r}. Use auto, cpu, cuda, cuda:1, mps, ...") from error


def resolve_dtype(dtype: str | torch.dtype, *, on_cpu: bool) -> str | torch.dtype:
    """Resolve the precision that a caller names, in the form that transformers takes.

    Args:
        dtype: A name, or a dtype of torch; `"auto"` takes the checkpoint's on an accelerator and float32 on a CPU.
        on_cpu: Whether all of the model will be on the CPU.

    Raises:
        OptionError: The dtype is unknown, or a model cannot compute in it.
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
    """The device on which a model takes its tokens, and so the device of results.

    Offloaded weights are on `meta`, where tensors have no values; the hook that loads them knows the device.
    """
    embedding = model.get_input_embeddings()  # type: ignore[operator]  # every model of transformers has it
    hook = getattr(embedding, "_hf_hook", None)
    hooks = getattr(hook, "hooks", (hook,))
    devices = (getattr(each, "execution_device", None) for each in hooks)
    device = next((device for device in devices if device is not None), None)
    if device is None:
        device = next((weight.device for weight in embedding.parameters()), "cpu")
    found = torch.device(device)
    return torch.device("cpu") if found.type == "meta" else found


def pixel_dtype(model: nn.Module) -> torch.dtype:
    """The precision in which a model takes pixels: that of its first weight that is not quantised."""
    floating = (
        weight.dtype
        for weight in model.parameters()
        if weight.dtype.is_floating_point and weight.dtype.itemsize >= _BYTES_OF_HALF
    )
    return next(floating, torch.float32)


def is_fixed(model: nn.Module) -> bool:
    """Whether a model stays where it was loaded, because it is mapped over devices or quantised."""
    return bool(getattr(model, "hf_device_map", None)) or getattr(model, "hf_quantizer", None) is not None
