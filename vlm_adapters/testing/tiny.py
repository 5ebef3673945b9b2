"""Building blocks of tiny random models of real classes, for the cases of plugins."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

from vlm_adapters.hf.byte_tokenizer import byte_tokenizer, token_ids

__all__ = ["TINY_TEXT", "byte_tokenizer", "random_model", "token_ids"]

TINY_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.2,
}
"""Sizes of a language model of 3 layers with 4 heads in groups that share keys."""


def random_model(
    config: PreTrainedConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str = "sdpa"
) -> PreTrainedModel:
    """Build a model of the config's class with random weights, the same for the same seed.

    Matrices that the family initialises with zeros are also drawn; with them the model would ignore the image.

    Args:
        config: Config of the model.
        seed: Seed of the weights.
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.2)
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():  # `nn.Module.to` would drop the imaginary part of complex ones
            tensor.data = tensor.data.to(dtype)
    return model
