"""The tokenizer that stands in for a family's own."""

from __future__ import annotations

from itertools import product

import pytest

from vlm_adapters.hf.byte_tokenizer import byte_tokenizer, token_ids

TRUE_IDS = {"<s>": 1, "</s>": 2, "<image>": 32000}


def test_control_tokens_have_the_ids_that_they_are_given() -> None:
    tokenizer = byte_tokenizer(TRUE_IDS, end="</s>", padding="</s>")
    assert token_ids(tokenizer) == TRUE_IDS
    assert tokenizer.convert_tokens_to_ids(list(TRUE_IDS)) == [1, 2, 32000]
    assert tokenizer("<s>a<image>b")["input_ids"][::2] == [1, 32000]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)


def test_without_ids_control_tokens_come_after_the_bytes() -> None:
    assert token_ids(byte_tokenizer(["<a>", "<b>"], end="<a>", padding="<b>")) == {"<a>": 256, "<b>": 257}


def test_every_text_comes_back(subtests: pytest.Subtests) -> None:
    forms: list[dict[str, int] | list[str]] = [TRUE_IDS, list(TRUE_IDS)]
    for text, special_tokens in product(["a cat", "Zoë 红 😀", "\n\t  ", "".join(map(chr, range(256)))], forms):
        with subtests.test(text=text, special_tokens=special_tokens):
            ids = byte_tokenizer(special_tokens, end="</s>", padding="</s>")(text)["input_ids"]
            tokenizer = byte_tokenizer(special_tokens, end="</s>", padding="</s>")
            assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
            assert len(ids) == len(text.encode())
            assert not set(ids) & set(token_ids(tokenizer).values())
