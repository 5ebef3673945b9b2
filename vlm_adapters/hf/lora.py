"""Loading a saved LoRA into the layers of its base: all of its weights, or an error."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel

from vlm_adapters.errors import AdapterError, CheckpointError, OptionError
from vlm_adapters.hf.sizes import no_larger_than_its_files
from vlm_adapters.hf.wrappers import unwrapped
from vlm_adapters.registry.checkpoints import LoraFolder

_WEIGHTS = "adapter_model.safetensors"


def add_lora(model: PreTrainedModel, lora: LoraFolder) -> None:
    """Load a LoRA into the layers of its base, in place.

    Raises:
        CheckpointError: The files are incomplete, or belong to another model.
        OptionError: The base is offloaded, or peft is not installed.
    """
    if not find_spec("peft"):
        raise OptionError(f"{lora.folder} holds a LoRA, which needs peft: pip install peft.")
    if any(weight.is_meta for weight in model.parameters()):
        raise OptionError(
            f"{lora.folder} holds a LoRA, and weights of its base are offloaded, where it cannot be loaded. "
            "Load the base without offloading, or merge it into the base first (merge_and_unload of peft)."
        )
    if not (lora.folder / _WEIGHTS).is_file():
        raise CheckpointError(f"{lora.folder} holds a LoRA without {_WEIGHTS}. Save it again with peft.")
    peft: Any = import_module("peft")  # takes seconds, so only for a LoRA
    try:
        config = peft.PeftConfig.from_pretrained(lora.folder)
        config.inference_mode = True
        with no_larger_than_its_files(lora.folder):
            wrapped = peft.PeftModel(model, config)
        result = wrapped.load_adapter(lora.folder, "default", torch_device="cpu")
        is_in_place = unwrapped(wrapped) is model
    except AdapterError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:300].rstrip(".")
        raise CheckpointError(
            f"The LoRA in {lora.folder} cannot be loaded into {lora.base}: {message}. Save it again with peft."
        ) from error
    if wrong := sorted({*result.missing_keys, *result.unexpected_keys}):
        raise CheckpointError(
            f"The LoRA in {lora.folder} does not fit {lora.base}: {len(wrong)} of its weights are missing or do "
            f"not belong to it, among them {wrong[0]}. Give the base that it was trained on, or save the LoRA again."
        )
    if not is_in_place:
        raise CheckpointError(
            f"The LoRA in {lora.folder} replaces {lora.base} instead of changing its layers. Merge it into the base "
            "with merge_and_unload of peft, and give the result."
        )
    model.eval().requires_grad_(requires_grad=False)
