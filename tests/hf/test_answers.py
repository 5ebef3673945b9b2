"""Which characters the tokens of an answer spell, and where earlier answers stand in a conversation by their tokens."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from vlm_adapters import Answer, Message, Prompt
from vlm_adapters.errors import PromptError
from vlm_adapters.hf.answers import encode_prompt, token_spans
from vlm_adapters.hf.byte_tokenizer import byte_tokenizer
from vlm_adapters.hf.chat import RenderedPrompt

TEXT = "Zoë's 🙂 and 红色的圆 — ½ ok"


def pieces_with_bytes() -> PreTrainedTokenizerFast:
    """As Llama's: words begin with a mark, characters beyond the vocabulary are bytes, the first space is dropped."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "▁red", "cat", "s", "▁▁"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)  # type: ignore[assignment, arg-type]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens(dict(zip(("unk_token", "bos_token", "eos_token"), pieces, strict=False)))
    return tokenizer


TOKENIZERS = {
    "bytes": byte_tokenizer(["<|end|>", "<|image|>"], end="<|end|>", padding="<|end|>"),
    "pieces": pieces_with_bytes(),
}


def ends_of_prefixes(tokenizer: Any, ids: list[int], text: str) -> list[int]:
    """How much of the text the tokens up to each one spell at most: every prefix is decoded by itself."""
    ends = list[int]()
    for count in range(len(ids) + 1):
        prefix = tokenizer.decode(ids[:count], skip_special_tokens=True)
        shared = max(end for end in range(len(text) + 1) if prefix.startswith(text[:end]))
        ends.append(max([*ends[-1:], shared]))
    return ends


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_tokens_spell_what_decoding_them_together_gives(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    text, spans = token_spans(tokenizer, ids)
    assert text == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(spans) == len(ids)
    special = set(tokenizer.all_special_ids)
    growth = pairwise(ends_of_prefixes(tokenizer, ids, text))
    for (begin, end), id_, (before, after) in zip(spans, ids, growth, strict=True):
        if id_ in special:
            assert begin == end
        elif before < after:  # what a prefix shows at once is spelled by its last token
            assert begin <= before
            assert after <= end


def test_bytes_of_one_character_all_spell_it() -> None:
    tokenizer = TOKENIZERS["bytes"]
    ids = tokenizer(TEXT)["input_ids"]
    text, spans = token_spans(tokenizer, ids)
    assert text == TEXT
    expected = [(i, i + 1) for i, letter in enumerate(TEXT) for _ in letter.encode()]
    assert spans == expected


def test_control_tokens_spell_nothing() -> None:
    tokenizer = TOKENIZERS["bytes"]
    end = tokenizer.eos_token_id
    letters = tokenizer("ab")["input_ids"]
    assert token_spans(tokenizer, [end, letters[0], end, letters[1], end]) == (
        "ab",
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)],
    )


def test_the_first_space_is_dropped_once() -> None:
    tokenizer = TOKENIZERS["pieces"]
    ids = tokenizer.convert_tokens_to_ids(["▁a", "▁red", "</s>", "▁", "cat", "s"])
    assert token_spans(tokenizer, ids) == ("a red cats", [(0, 1), (1, 5), (5, 5), (5, 6), (6, 9), (9, 10)])


def test_an_answer_that_was_cut_within_a_character_is_spelled_to_its_end() -> None:
    tokenizer = TOKENIZERS["bytes"]
    ids = tokenizer("a🙂")["input_ids"][:-1]
    text, spans = token_spans(tokenizer, ids)
    assert text == tokenizer.decode(ids)
    assert spans[0] == (0, 1)
    assert {end for _, end in spans[1:]} == {len(text)}


IMAGE = Image.new("RGB", (4, 4))
TOKENIZER = pieces_with_bytes()
TOKENIZER.add_special_tokens({"additional_special_tokens": ["<image>"]})
SHOWN, END = TOKENIZER.convert_tokens_to_ids(["<image>", "</s>"])
A, RED, CAT = TOKENIZER.convert_tokens_to_ids(["▁a", "▁red", "cat"])


def rendering(*, before: str = "", shown: Callable[[str], str] = str) -> Callable[[Prompt], RenderedPrompt]:
    """A template that writes an image, `Q:` and `A:` before texts; in answers `before` and `shown`, too."""

    def render(prompt: Prompt) -> RenderedPrompt:
        text, spans = "<image>", []
        for message in prompt.messages:
            user = message.role == "user"
            text += "Q:" if user else f"A:{before}"
            words = message.text if user else shown(message.text)
            spans.append((len(text), len(text) + len(words)))
            text += words + ("" if user else "</s>")
        opening = "A:" if prompt.messages[-1].role == "user" else ""
        return RenderedPrompt(text + opening, tuple(spans), ((0, len("<image>")),))

    return render


def encoded(prompt: Prompt, render: Callable[[Prompt], RenderedPrompt]) -> list[int]:
    return encode_prompt(TOKENIZER, prompt, render, [([SHOWN], [1])], {SHOWN})[0].ids


def second(answer: Answer | str) -> Prompt:
    """A second question after an answer."""
    return Prompt.chat([Message("user", (IMAGE, "what?"))]).answered(answer).asked("and?")


@pytest.mark.parametrize("before", ["", " ", "\n"])
@pytest.mark.parametrize("end", [[], [END], [END, END]])
def test_an_earlier_answer_stands_where_it_was_written(before: str, end: list[int]) -> None:
    render, prompt = rendering(before=before), second(Answer("a redcat", [A, RED, CAT, *end]))
    question = encoded(Prompt.chat(prompt.messages[:1]), render)
    found = encoded(prompt, render)
    assert found[: len(question) + 4] == [*question, A, RED, CAT, END]
    assert TOKENIZER.decode(found[len(question) + 4 :]) == "Q:and?A:"


def test_every_earlier_answer_does() -> None:
    prompt = second(Answer("a cat", [A, TOKENIZER.convert_tokens_to_ids("▁"), CAT]))
    third = prompt.answered(Answer("red", [RED, END])).asked("then?").answered(Answer("a", [A]), ["a"])
    found = encoded(third, rendering())
    places = [found.index(CAT), found.index(RED)]
    assert places == sorted(places)
    assert found.count(END) == 2
    assert found[-1] == A


@pytest.mark.parametrize(
    "render", [rendering(before="so "), rendering(shown=str.upper), rendering(shown=lambda text: text[2:])]
)
def test_an_answer_that_the_template_writes_otherwise_is_a_text(render: Callable[[Prompt], RenderedPrompt]) -> None:
    prompt = second(Answer("a red", [A, RED, END]))
    assert encoded(prompt, render) == encoded(second("a red"), render)
    assert RED not in encoded(prompt, render)


def test_the_thinking_before_an_answer_is_not_kept() -> None:
    prompt = second(Answer("red", [CAT, RED, END]))
    assert encoded(prompt, rendering()) == encoded(second("red"), rendering())


def test_ids_of_an_earlier_answer_are_checked() -> None:
    with pytest.raises(PromptError, match=r"spell 'a red', and its text is 'a cat'"):
        encoded(second(Answer("a cat", [A, RED])), rendering())
    with pytest.raises(PromptError, match=r"The answer holds the token '<image>'"):
        encoded(second(Answer("a", [A, SHOWN])), rendering())


def test_control_tokens_in_words_beside_an_earlier_answer_are_words() -> None:
    given = (
        Prompt.chat([Message("user", (IMAGE, "</s>?"))]).answered(Answer("a red", [A, RED, END])).asked("<image></s>")
    )
    found = encoded(given, rendering())
    assert (found.count(SHOWN), found.count(END)) == (1, 1)
