"""Parts of tiny random models of real classes: what the cases of all plugins are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

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


def byte_tokenizer(
    special_tokens: Sequence[str] | Mapping[str, int], *, end: str, padding: str, **options: Any
) -> PreTrainedTokenizerFast:
    """Build a tokenizer with a family's control tokens and one token per byte.

    Args:
        special_tokens: Control tokens; with a mapping they get these ids, which must not be below 256.
        end: Which of them ends a text.
        padding: Which of them pads.
        options: For `PreTrainedTokenizerFast`.
    """
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    if isinstance(special_tokens, Mapping):
        vocabulary |= special_tokens
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=padding, eos_token=end, **{"padding_side": "left", **options}
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(special_tokens)})
    return tokenizer


def token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the control tokens, by their text."""
    return {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}


def random_model(
    config: PreTrainedConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str = "sdpa"
) -> PreTrainedModel:
    """Build a model of the config's class with random weights, the same for the same seed.

    Args:
        config: Of the whole model.
        seed: Of the weights.
        dtype: Of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    nn.Module.to(model, dtype)  # the model's own `to` has no types
    return model
