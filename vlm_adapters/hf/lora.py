"""A LoRA that training saved: put into the layers of its base, every weight of it, or not at all."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel

from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.hf.wrappers import unwrapped
from vlm_adapters.registry.checkpoints import LoraFolder

_WEIGHTS = "adapter_model.safetensors"


def add_lora(model: PreTrainedModel, lora: LoraFolder) -> None:
    """Put a LoRA into the layers of its base, in place.

    Raises:
        CheckpointError: Its files are not complete, or are for another model.
        OptionError: The base is offloaded, or peft is not installed.
    """
    if not find_spec("peft"):
        raise OptionError(f"{lora.folder} holds a LoRA, which needs peft: pip install peft.")
    if any(weight.is_meta for weight in model.parameters()):
        raise OptionError(
            f"{lora.folder} holds a LoRA, and weights of its base are offloaded, so that it cannot be put into them. "
            "Load it without offloading, or merge it into the base first (merge_and_unload of peft)."
        )
    if not (lora.folder / _WEIGHTS).is_file():
        raise CheckpointError(f"{lora.folder} holds a LoRA without {_WEIGHTS}. Save it again with peft.")
    peft: Any = import_module("peft")  # seconds that only a LoRA takes
    try:
        config = peft.PeftConfig.from_pretrained(lora.folder)
        config.inference_mode = True
        wrapped = peft.PeftModel(model, config)
        result = wrapped.load_adapter(lora.folder, "default", torch_device="cpu")
        is_in_place = unwrapped(wrapped) is model
    except OptionError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:300].rstrip(".")
        raise CheckpointError(f"The LoRA in {lora.folder} cannot be put on {lora.base}: {message}.") from error
    if wrong := sorted({*result.missing_keys, *result.unexpected_keys}):
        raise CheckpointError(
            f"The LoRA in {lora.folder} does not fit {lora.base}: {len(wrong)} of its weights have no place in it or "
            f"are missing, among them {wrong[0]}. Give the base that it was trained on, or save it anew."
        )
    if not is_in_place:
        raise CheckpointError(f"The LoRA in {lora.folder} cannot be put into the layers of {lora.base} in place.")
    model.eval().requires_grad_(requires_grad=False)
