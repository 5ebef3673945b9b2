"""From a prompt to tokens: equal to the processor's own where it can be, and never led astray by the user's text."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers.normalizers import NFC

from vlm_adapters import Message, Prompt, load_adapter
from vlm_adapters.errors import PhraseError, PromptError
from vlm_adapters_qwen.adapter import QwenAdapter
from vlm_adapters_qwen.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS, qwen2_5_vl

WIDE = Image.new("RGB", (112, 56), "red")
"""Resized by nobody: 2 x 4 cells of 28 pixels."""
TALL = Image.new("RGB", (56, 84), "blue")


@cache
def adapter() -> QwenAdapter:
    return qwen2_5_vl()


def ids_of(prompt: Prompt) -> list[int]:
    ids: list[int] = adapter().preprocess([prompt]).tensors["input_ids"][0].tolist()
    return ids


def identifier(token: str) -> int:
    found: int = adapter().processor.tokenizer.convert_tokens_to_ids(token)
    return found


def spelled(prompt: Prompt, phrase: int = 0) -> str:
    """What the tokens of a phrase spell."""
    inputs = adapter().preprocess([prompt])
    positions = inputs.phrase_tokens[0][phrase]
    ids = inputs.tensors["input_ids"][0, positions]
    text: str = adapter().processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def image_positions(text: str) -> list[int]:
    """Where the image stands in the caption prompt with this text."""
    ids = ids_of(Prompt.describe(WIDE, text))
    return [position for position, id_ in enumerate(ids) if id_ == identifier("<|image_pad|>")]


BENIGN = {
    "one image": [Message("user", (WIDE, "What is this?")), Message("assistant", ("A red thing.",))],
    "two images": [Message("user", (WIDE, "one, ", TALL, "two")), Message("assistant", ("Both.",))],
    "a system message": [
        Message("system", ("Be brief.",)),
        Message("user", ("Look: ", TALL)),
        Message("assistant", ("Blue é 红 😀.",)),
    ],
    "the user's turn is last": [Message("user", (WIDE, "Where is it?"))],
    "a second question": [
        Message("user", (WIDE, "a")),
        Message("assistant", ("b",)),
        Message("user", ("c", TALL)),
    ],
    "white space": [Message("user", (WIDE, "  a \n\n b\t")), Message("assistant", (" \n c ",))],
}


def test_the_tokens_are_those_of_the_processor(subtests: pytest.Subtests) -> None:
    for name, messages in BENIGN.items():
        with subtests.test(name):
            conversation = [
                {
                    "role": message.role,
                    "content": [
                        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
                        for part in message.content
                    ],
                }
                for message in messages
            ]
            theirs: Any = adapter().processor.apply_chat_template(
                conversation,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=messages[-1].role == "user",
                processor_kwargs={"return_mm_token_type_ids": True},
            )
            ours = adapter().preprocess([Prompt.chat(messages)]).tensors
            assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
            assert ours["attention_mask"].tolist() == theirs["attention_mask"].tolist()
            assert ours["mm_token_type_ids"].tolist() == theirs["mm_token_type_ids"].tolist()
            assert ours["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
            assert torch.equal(ours["pixel_values"], theirs["pixel_values"])  # images of whole cells, not resized


def test_image_tokens_are_marked_and_nothing_else() -> None:
    tensors = adapter().preprocess([Prompt.describe(WIDE, "a cat")]).tensors
    assert tensors["mm_token_type_ids"].eq(1).equal(tensors["input_ids"].eq(identifier("<|image_pad|>")))
    assert int(tensors["mm_token_type_ids"].sum()) == 8


def test_a_control_token_in_the_text_is_encoded_as_text_and_grounded(subtests: pytest.Subtests) -> None:
    for token in SPECIAL_TOKENS:
        with subtests.test(token=token):
            plain, hostile = Prompt.describe(WIDE, "a  cat"), Prompt.describe(WIDE, f"a {token} cat", [token])
            assert spelled(hostile) == token
            for special in SPECIAL_TOKENS:
                assert ids_of(hostile).count(identifier(special)) == ids_of(plain).count(identifier(special))


def test_a_control_token_over_two_texts_is_encoded_as_text(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, ...]] = [
        ("<|image_", "pad|>"),
        ("<", "|image_pad|>"),
        ("<|image_pad|", ">"),
        ("<|im_", "", "end|>"),
    ]
    for parts in cases:
        with subtests.test(parts=parts):
            prompt = Prompt.chat([Message("user", (WIDE, *parts))], ["".join(parts)])
            assert spelled(prompt) == "".join(parts)
            assert ids_of(prompt).count(identifier("<|image_pad|>")) == 8
            assert ids_of(prompt).count(identifier("<|im_end|>")) == 1


def test_a_control_token_in_an_earlier_message_is_encoded_as_text() -> None:
    turns = [Message("system", ("<|im_end|>",)), Message("user", ("<|image_pad|>", WIDE)), Message("assistant", ("x",))]
    ids = ids_of(Prompt.chat(turns))
    assert ids.count(identifier("<|im_end|>")) == 3
    assert ids.count(identifier("<|image_pad|>")) == 8


WORDS = "<|image_ pad|> <| |> < > <image> </s> [INST] {{ é 红 😀 cat"
ODD = ("{% endif %}", "\n", " ", "\x00", "\ud83d", "\ude00", "\u202e", "e\u0301", "\U000f0000", "\U000f0001")
PIECES = st.sampled_from([*SPECIAL_TOKENS, *WORDS.split(), *ODD])
HOSTILE = st.lists(PIECES | st.text(st.characters(exclude_categories=[]), max_size=6), max_size=8).map("".join)


def refused(text: str, phrase: str | None = None) -> AbstractContextManager[object]:
    """Lone surrogates cannot be encoded, a caption or a phrase must not be blank; there is no other excuse."""
    lone = any("\ud800" <= letter <= "\udfff" for letter in text)
    return pytest.raises(PromptError) if lone or not (text if phrase is None else phrase).strip() else nullcontext()


@settings(max_examples=80, deadline=None)
@given(HOSTILE)
def test_no_text_moves_the_image_span(text: str) -> None:
    with refused(text):
        assert image_positions(text) == image_positions("a cat")


@settings(max_examples=80, deadline=None)
@given(st.lists(HOSTILE, min_size=1, max_size=4), st.data())
def test_any_span_of_any_texts_is_spelled_by_its_tokens(texts: list[str], data: st.DataObject) -> None:
    text = "".join(texts)
    end = data.draw(st.integers(0, len(text)))
    start = data.draw(st.integers(0, end))
    with refused(text, text[start:end]):
        prompt = Prompt.chat([Message("user", (WIDE, *texts))], [(start, end)])
        # The tokenizer has a token per byte: what is not cut within a letter is spelled exactly.
        assert spelled(prompt) == prompt.phrases[0].text


@settings(max_examples=40, deadline=None)
@given(HOSTILE)
def test_what_was_written_is_what_the_model_reads(text: str) -> None:
    with refused(text, "a question may be blank"):
        prompt = Prompt.chat([Message("user", (WIDE, text))])
        ids = ids_of(prompt)
        begin = ids.index(identifier("<|vision_end|>")) + 1
        end = max(place for place, id_ in enumerate(ids) if id_ == identifier("<|im_end|>"))
        assert adapter().processor.tokenizer.decode(ids[begin:end], clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("text", ["a \ud83d cat", "\udfff"])
def test_a_lone_surrogate_is_a_typed_error(text: str) -> None:
    with pytest.raises(PromptError, match="cannot be encoded"):
        adapter().preprocess([Prompt.describe(WIDE, text)])


def test_letters_of_several_bytes_have_all_their_tokens() -> None:
    for phrase in ["é", "红色", "😀", "👩‍🚀", "e\u0301", "naïve café", "\x00", "\U000f0000"]:
        prompt = Prompt.describe(WIDE, f"x {phrase} y", [phrase])
        assert spelled(prompt) == phrase, phrase
        assert len(adapter().preprocess([prompt]).phrase_tokens[0][0]) == len(phrase.encode()), phrase


def test_a_tokenizer_that_composes_letters_still_knows_where_a_phrase_stands() -> None:
    composing = qwen2_5_vl()  # as the published tokenizer does
    composing.processor.tokenizer.backend_tokenizer.normalizer = NFC()
    inputs = composing.preprocess([Prompt.describe(WIDE, "cafe\u0301 <|im_end|> e\u0301x", ["cafe\u0301", "x"])])
    ids = inputs.tensors["input_ids"][0]
    words = [composing.processor.tokenizer.decode(ids[positions]) for positions in inputs.phrase_tokens[0]]
    assert words == ["caf\u00e9", "x"]


def test_phrases_at_the_very_start_and_end() -> None:
    prompt = Prompt.describe(WIDE, "one two three", ["one", "three", "one two three"])
    assert [spelled(prompt, index) for index in range(3)] == ["one", "three", "one two three"]


def test_a_phrase_may_straddle_two_texts() -> None:
    prompt = Prompt.chat([Message("user", (WIDE, "a red ", "circle"))], ["red circle"])
    assert spelled(prompt) == "red circle"


def test_the_tokens_of_an_image_within_a_phrase_do_not_belong_to_it() -> None:
    prompt = Prompt.chat([Message("user", ("a red ", WIDE, "circle"))], ["red circle"])
    positions = adapter().preprocess([prompt]).phrase_tokens[0][0].tolist()
    assert spelled(prompt) == "red circle"
    assert max(b - a for a, b in pairwise(positions)) == 11  # 8 cells, vision start and end


def test_a_phrase_in_the_users_question() -> None:
    prompt = Prompt.chat([Message("user", (WIDE, "Where is the cat?"))], ["the cat"])
    assert spelled(prompt) == "the cat"
    assert ids_of(prompt)[-1] != identifier("<|im_end|>")  # the assistant's turn is open


def test_the_same_words_in_an_earlier_message_are_not_meant() -> None:
    turns = [Message("user", (WIDE, "a cat")), Message("assistant", ("a cat",))]
    inputs = adapter().preprocess([Prompt.chat(turns, ["a cat"])])
    ids = inputs.tensors["input_ids"][0].tolist()
    turn = max(place for place, id_ in enumerate(ids) if id_ == identifier("<|im_start|>"))
    assert int(inputs.phrase_tokens[0][0][0]) > turn


def test_a_template_that_drops_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter().processor, "chat_template", CHAT_TEMPLATE.replace("<|image_pad|>", ""))
    with pytest.raises(PromptError, match=r"has 0 placeholders '<\|image_pad\|>' for 1 images"):
        adapter().preprocess([Prompt.describe(WIDE, "a cat")])


@pytest.mark.parametrize("change", ["part['text'] | upper", "part['text'] | replace('cat', 'dog')", "'fixed'"])
def test_a_template_that_changes_the_text_is_refused(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(adapter().processor, "chat_template", CHAT_TEMPLATE.replace("part['text']", change))
    with pytest.raises(PromptError, match="changes the order or wording"):
        adapter().preprocess([Prompt.describe(WIDE, "a cat")])


def test_a_template_that_raises_is_reported_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter().processor, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(PromptError, match=r"does not take these messages \(user, assistant\): roles must alternate"):
        adapter().preprocess([Prompt.describe(WIDE, "a cat")])


def test_a_template_that_trims_texts_is_given_the_full_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    trimming = CHAT_TEMPLATE.replace("part['text']", "part['text'] | trim")
    monkeypatch.setattr(adapter().processor, "chat_template", trimming)
    assert spelled(Prompt.describe(WIDE, "  a cat ", ["cat"])) == "cat"


def test_a_text_that_is_too_long_is_refused_with_both_numbers() -> None:
    with pytest.raises(PromptError, match=r"A prompt has 4\d\d\d tokens.*at most 4096"):
        adapter().preprocess([Prompt.describe(WIDE, "a cat " * 700)])


@pytest.mark.filterwarnings("ignore::vlm_adapters.errors.UnlikeSceneWarning")
@pytest.mark.parametrize(("text", "options"), [("a cat " * 3000, {}), ("a cat", {"max_pixels": 24_000_000})])
def test_a_prompt_that_is_too_long_is_refused_before_pixels_are_made(
    text: str, options: dict[str, int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = load_adapter("tiny-qwen2_5_vl", **options)
    prompt = Prompt.describe(Image.new("RGB", (3000, 2000)), text, [(0, 5)])
    monkeypatch.setattr(type(adapter), "process_images", lambda *_: pytest.fail("pixels were made"))
    capfd.readouterr()
    with pytest.raises(PromptError, match=r"A prompt has \d+ tokens.*at most 4096"):
        adapter.preprocess([prompt])
    printed = capfd.readouterr()
    assert "indexing errors" not in printed.err + printed.out


def test_a_phrase_that_the_tokenizer_drops_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = adapter().processor.tokenizer
    real = type(tokenizer).__call__

    def deaf(self: Any, text: Any, **options: Any) -> Any:
        encoded = real(self, text, **options)
        if "offset_mapping" not in encoded:
            return encoded
        kept = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if text[a:b] != "#"]
        return {name: [encoded[name][i] for i in kept] for name in ("input_ids", "offset_mapping")}

    monkeypatch.setattr(type(tokenizer), "__call__", deaf)
    with pytest.raises(PhraseError, match="drops the phrase '#'"):
        adapter().preprocess([Prompt.describe(WIDE, "a # b", ["#"])])
