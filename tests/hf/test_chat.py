"""Token sequences of a tokenizer that puts a space before the first word and a start token before all: LLaMA's kind."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Template
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import LlamaTokenizer

from vlm_adapters.hf.chat import phrase_positions, render, tokenize
from vlm_adapters.prompt import Message, Prompt

IMAGE = Image.new("RGB", (30, 20))
TOKENS = 3


class LetterProcessor:
    """A chat template and a LLaMA tokenizer with one token per letter; an image is three image tokens.

    Args:
        opening: Beginning of the template.
        atom: The token of the tokenizer that an image becomes.
    """

    image_token = "<image>"

    def __init__(self, opening: str = "USER: ", atom: str = "<image>") -> None:
        letters = ["<unk>", "<s>", "</s>", "\u2581", *string.printable, *(f"<0x{byte:02X}>" for byte in range(256))]
        self.tokenizer = LlamaTokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
        self.tokenizer.add_special_tokens({"additional_special_tokens": [atom]})
        self.tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
        self.template = Template(
            opening + "{% for message in messages %}{% for part in message.content %}"
            "{% if part.type == 'image' %}<image>\n{% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
        )

    def apply_chat_template(self, conversation: Any, **_: Any) -> str:
        return self.template.render(messages=conversation)


def encoded(processor: LetterProcessor, prompt: Prompt, atom: str = "<image>") -> tuple[list[str], list[str]]:
    """All tokens, and those of the first phrase."""
    image = processor.tokenizer.convert_tokens_to_ids(atom)
    rendered = render(processor, prompt)
    sequence = tokenize(processor.tokenizer, rendered, [([image] * TOKENS, [1] * TOKENS)] * len(prompt.images))
    found = processor.tokenizer.convert_ids_to_tokens(sequence.ids)
    positions = phrase_positions(sequence, rendered, prompt, prompt.phrases[0]) if prompt.phrases else []
    return found, [found[position] for position in positions]


@pytest.mark.parametrize("token", ["<image>", "<atom>"])
@pytest.mark.parametrize("opening", ["USER: ", "", "<s>USER: "])
def test_the_tokens_are_those_of_the_whole_expanded_text(opening: str, token: str) -> None:
    """Also where the tokenizer does not know the placeholder, which the processor replaces in the text."""
    processor = LetterProcessor(opening, token)
    content = (IMAGE, "Which cat?", IMAGE, IMAGE)
    prompt = Prompt.chat([Message("user", content), Message("assistant", ("the left one",))])
    whole = render(processor, prompt).text.replace("<image>", token * TOKENS)
    ids = processor.tokenizer(whole, add_special_tokens=not whole.startswith("<s>"))["input_ids"]
    assert encoded(processor, prompt, token)[0] == processor.tokenizer.convert_ids_to_tokens(ids)


def test_a_placeholder_in_the_users_text_is_text_also_where_the_tokenizer_does_not_know_it() -> None:
    processor = LetterProcessor(atom="<atom>")
    tokens, phrase = encoded(processor, Prompt.describe(IMAGE, "a <image> of a cat", ("<image>",)), "<atom>")
    assert tokens.count("<atom>") == TOKENS
    assert "".join(phrase) == "<image>"


@pytest.mark.parametrize("opening", ["USER: ", ""])
def test_there_is_one_start_token_and_it_is_the_first(opening: str) -> None:
    found, _ = encoded(LetterProcessor(opening), Prompt.describe(IMAGE, "a cat"))
    assert [i for i, token in enumerate(found) if token == "<s>"] == [0]


@pytest.mark.parametrize("control", ["</s>", "<s>", "<image>"])
def test_a_control_token_of_the_user_is_spelled_out_without_added_spaces(control: str) -> None:
    text = f"a {control} dog"
    _, phrase = encoded(LetterProcessor(), Prompt.describe(IMAGE, text, [(0, len(text))]))
    assert "".join(phrase).replace("\u2581", " ").strip() == text


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["a", " ", "\n", "<image>", "</s>", "<s>", "<", "image>", "é"]), min_size=1))
def test_no_text_moves_the_image(parts: list[str]) -> None:
    plain, _ = encoded(LetterProcessor(), Prompt.describe(IMAGE, "a cat"))
    found, _ = encoded(LetterProcessor(), Prompt.describe(IMAGE, "x" + "".join(parts)))
    places = [i for i, token in enumerate(plain) if token == "<image>"]
    assert [i for i, token in enumerate(found) if token == "<image>"] == places
