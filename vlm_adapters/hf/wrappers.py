"""Wrappers around a model of transformers, and the model inside them."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import PreTrainedModel

from vlm_adapters.errors import OptionError


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Find the model of transformers inside wrappers that do not change how its layers are called.

    A `PeftModel` gives its base model, which keeps the layers of the LoRA. The result of `torch.compile` gives the
    module that was compiled, which runs uncompiled; `model.compile()` compiles in place, and the model stays compiled.

    Raises:
        OptionError: A wrapper does more than that, or holds no model of transformers.
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        outer, inner = inner, _within(inner)
        if inner is None:
            raise OptionError(
                f"A {type(outer).__name__} is not a model of transformers. Give a PreTrainedModel, such as the result "
                "of AutoModelForImageTextToText.from_pretrained."
            )
    check_callable_inside(inner)
    return inner


def check_callable_inside(model: PreTrainedModel) -> None:
    """Make sure that a model's base can be called without the model itself.

    Raises:
        OptionError: `fully_shard` was called on the model itself, so its base has no weights until the model is called.
    """
    if isinstance(model, FSDPModule):
        raise OptionError(
            f"fully_shard was called on the {type(model).__mro__[2].__name__} itself, and an adapter calls its base "
            "without the layer that makes logits. Shard the layers, and then model.base_model."
        )


def _within(wrapper: Any) -> Any:
    """The content of one wrapper; None if it is not a known wrapper."""
    name = type(wrapper).__name__
    if isinstance(wrapper, FullyShardedDataParallel):
        raise OptionError(
            f"A {name} flattens the weights of its model, so the model cannot run without it. Shard the model in place "
            "with torch.distributed.fsdp.fully_shard, or give the model before wrapping it."
        )
    if hasattr(wrapper, "module"):  # DistributedDataParallel, DataParallel, DeepSpeed's engine
        raise OptionError(
            f"A {name} sums gradients whenever it is called, and an adapter calls the model inside it. "
            "Give its .module, which has the same weights."
        )
    if hasattr(wrapper, "_orig_mod"):  # torch.compile
        return wrapper._orig_mod  # noqa: SLF001 - torch documents no other way to it
    peft = sys.modules.get("peft")
    if peft and isinstance(wrapper, peft.PeftModel):
        if wrapper.active_peft_config.is_prompt_learning:
            raise OptionError(
                f"A {name} of the kind {wrapper.active_peft_config.peft_type.value} puts tokens before the prompt, "
                "which moves all positions that the adapter computes. Use LoRA or another kind that changes layers."
            )
        return wrapper.get_base_model()
    if peft and isinstance(wrapper, (peft.PeftMixedModel, peft.tuners.tuners_utils.BaseTuner)):
        return wrapper.base_model if isinstance(wrapper, peft.PeftMixedModel) else wrapper.model
    return None
