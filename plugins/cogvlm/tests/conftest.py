"""Llama tokenizers of a few words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import LlamaTokenizer

WORDS = ("▁Question", "▁Please", "▁What", "▁Answer", "▁a", "▁red", "▁cat")


@pytest.fixture
def llama_tokenizer() -> Callable[..., LlamaTokenizer]:
    """Builds a tokenizer: words with the mark of a space, as sentencepiece writes it, their beginnings, and bytes.

    With `legacy` the mark stands before every part of a text, and not only at its beginning.
    """

    def build(*, legacy: bool = False) -> LlamaTokenizer:
        letters = sorted({letter for word in (*WORDS, ":?.") for letter in word})
        beginnings = [word[:end] for word in WORDS for end in range(2, len(word) + 1)]
        control = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        merges = [(word[:end], word[end]) for word in WORDS for end in range(1, len(word))]
        return LlamaTokenizer(
            vocab={piece: index for index, piece in enumerate(dict.fromkeys([*control, *letters, *beginnings]))},
            merges=list(dict.fromkeys(merges)),
            legacy=legacy,
            add_bos_token=True,
        )

    return build
