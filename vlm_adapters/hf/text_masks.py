"""Masks that keep texts apart which follow one another in one sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def layer_kinds(model: PreTrainedModel) -> set[str]:
    """The kinds of the language model's layers, as transformers names them."""
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    return set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])


def kernel_of(model: PreTrainedModel) -> str | None:
    """The attention kernel of the language model, as transformers names it."""
    kernel: str | None = model.config.get_text_config(decoder=True)._attn_implementation  # noqa: SLF001 - no public one
    return kernel


def masks_apart(owners: Tensor, orders: Tensor, first: int, model: PreTrainedModel) -> Tensor | dict[str, Tensor]:
    """Masks `(1, 1, T, S)` of the last T tokens: each sees itself and what is before it in its prompt.

    Args:
        owners: `(S,)`: the prompt of every token; -1 for the common beginning. On the device, as `orders`.
        orders: `(S,)`: its position in its prompt.
        first: The first of the T tokens.
        model: The model.

    Returns:
        One mask, or one per kind of layer where there are several, as the model takes them.
    """
    window: Any = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    distance = orders[first:, None] - orders
    seen = (distance >= 0) & ((owners == -1) | (owners[first:, None] == owners))
    masks = {}
    for kind in layer_kinds(model):
        of_kind = seen & (distance < window) if kind == "sliding_attention" else seen
        mask = of_kind[None, None]
        if kernel_of(model) == "eager":
            mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(model.dtype).min
            )
        masks[kind] = mask
    return masks if len(masks) > 1 else next(iter(masks.values()))
