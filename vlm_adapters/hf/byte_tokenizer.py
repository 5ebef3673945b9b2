"""A tokenizer without a vocabulary: one token per byte, and a family's control tokens at their published ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def byte_tokenizer(
    special_tokens: Sequence[str] | Mapping[str, int], *, end: str, padding: str, **options: Any
) -> PreTrainedTokenizerFast:
    """Build a tokenizer that stands in for a family's tokenizer where the vocabulary does not matter.

    Args:
        special_tokens: Control tokens; a mapping gives their ids, and bytes get the lowest ids that are free.
        end: The control token that ends a text.
        padding: The control token that pads.
        options: Passed to `PreTrainedTokenizerFast`.
    """
    ids = dict(special_tokens) if isinstance(special_tokens, Mapping) else {}
    free = (index for index in count() if index not in ids.values())
    vocabulary = dict(zip(sorted(pre_tokenizers.ByteLevel.alphabet()), free, strict=False)) | ids
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
