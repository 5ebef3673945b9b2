"""Answers of a transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vlm_adapters.errors import BackboneError
from vlm_adapters.registry.versions import typed_errors

_GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1,
    "return_dict_in_generate": False,
}
"""Generation settings of a checkpoint may sample and penalise repetition."""


def likeliest_tokens(model: PreTrainedModel, tensors: Mapping[str, Tensor], max_new_tokens: int) -> Tensor:
    """Ids `(T,)` of the likeliest continuation of one sequence, token by token.

    Raises:
        BackboneError: The model raised an error.
    """
    generative: Any = model
    with torch.no_grad(), typed_errors(f"Generation with {model.config.model_type}", BackboneError):
        ids: Tensor = generative.generate(**tensors, max_new_tokens=max_new_tokens, **_GREEDY)
    return ids[0, tensors["input_ids"].shape[1] :]
