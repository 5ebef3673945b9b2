"""What people wrap around a model of transformers, and the model within."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from transformers import PreTrainedModel

from vlm_adapters.errors import OptionError


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The model of transformers within wrappers that change nothing of how its layers are called.

    A `PeftModel` gives its base model, in which the adapters' layers stay; the result of `torch.compile` gives the
    module that was compiled, and runs as that: `model.compile()` compiles in place and stays compiled.

    Raises:
        OptionError: A wrapper does more than that, or there is no model of transformers in it.
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        outer, inner = inner, _within(inner)
        if inner is None:
            raise OptionError(
                f"A {type(outer).__name__} is no model of transformers. Give a PreTrainedModel, such as "
                "AutoModelForImageTextToText.from_pretrained loads it."
            )
    check_callable_inside(inner)
    return inner


def check_callable_inside(model: PreTrainedModel) -> None:
    """Check that a model's base can be called without the model itself.

    Raises:
        OptionError: `fully_shard` was called on the model as a whole: its base has no weights until it is called.
    """
    if isinstance(model, FSDPModule):
        raise OptionError(
            f"fully_shard was called on the whole {type(model).__mro__[2].__name__}, and an adapter calls its base "
            "without the layer that makes logits. Shard its layers and then model.base_model."
        )


def _within(wrapper: Any) -> Any:
    """What one wrapper holds, or None."""
    name = type(wrapper).__name__
    if isinstance(wrapper, FullyShardedDataParallel):
        raise OptionError(
            f"A {name} flattens the weights of its model, which cannot run within it alone. Shard it in place with "
            "torch.distributed.fsdp.fully_shard, or give the model before it is wrapped."
        )
    if hasattr(wrapper, "module"):  # DistributedDataParallel, DataParallel, DeepSpeed's engine
        raise OptionError(
            f"A {name} sums gradients whenever it is called, and an adapter calls the model within it. "
            "Give its .module: the adapter then uses the same weights."
        )
    if hasattr(wrapper, "_orig_mod"):  # torch.compile
        return wrapper._orig_mod  # noqa: SLF001 - torch documents no other way to it
    peft = sys.modules.get("peft")
    if peft and isinstance(wrapper, peft.PeftModel):
        if wrapper.active_peft_config.is_prompt_learning:
            raise OptionError(
                f"A {name} of the kind {wrapper.active_peft_config.peft_type.value} puts tokens of its own before the "
                "prompt, so that no token stands where the adapter says. Use LoRA or another kind that changes layers."
            )
        return wrapper.get_base_model()
    if peft and isinstance(wrapper, (peft.PeftMixedModel, peft.tuners.tuners_utils.BaseTuner)):
        return wrapper.base_model if isinstance(wrapper, peft.PeftMixedModel) else wrapper.model
    return None
