"""Prompts, messages and phrases: what is found where, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters.answer import Answer
from vlm_adapters.errors import ImageError, PhraseError, PromptError
from vlm_adapters.prompt import DESCRIBE_QUESTION, Message, Phrase, Prompt

IMAGE = Image.new("RGB", (6, 4), "red")
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=30)


def test_a_phrase_is_found_where_it_stands() -> None:
    assert Phrase.find("a cat on a mat", "a mat") == Phrase("a mat", 9, 14)


def test_white_space_around_a_phrase_is_not_part_of_it() -> None:
    assert Phrase.find("a cat on a mat", "\t cat\n") == Phrase("cat", 2, 5)


def test_a_span_is_trimmed_to_its_words() -> None:
    assert Phrase.at("a  cat  sits", 1, 8) == Phrase("cat", 3, 6)


def test_a_span_may_be_the_whole_text() -> None:
    assert Phrase.at("cat", 0, 3).span == (0, 3)


def test_a_blank_phrase_is_refused_with_the_text_shown(subtests: pytest.Subtests) -> None:
    for phrase in ["", " ", "\n\t", "\u2003"]:
        with subtests.test(phrase=phrase), pytest.raises(PhraseError, match=r"blank.*'a cat'"):
            Phrase.find("a cat", phrase)


@pytest.mark.parametrize("phrase", ["dog", "Cat", "a  cat"])
def test_a_missing_phrase_is_refused_with_the_text_shown(phrase: str) -> None:
    with pytest.raises(PhraseError, match=f"{phrase!r} is not in the text 'a cat'"):
        Phrase.find("a cat", phrase)


def test_an_ambiguous_phrase_is_refused_with_both_places(subtests: pytest.Subtests) -> None:
    cases = [("a cat, a cat", "a cat", (0, 7)), ("aaa", "aa", (0, 1)), ("ababa", "aba", (0, 2)), ("a cat", "a", (0, 3))]
    for text, phrase, places in cases:
        with subtests.test(text=text, phrase=phrase, places=places):
            expected = f"more than once in the text {text!r} (at characters {places[0]} and {places[1]})"
            with pytest.raises(PhraseError, match=re.escape(expected)):
                Phrase.find(text, phrase)


def test_a_span_outside_the_text_is_refused_with_its_length(subtests: pytest.Subtests) -> None:
    for span in [(-1, 2), (0, 0), (3, 2), (0, 6), (5, 6), (-3, -1)]:
        with subtests.test(span=span):
            expected = f"The span ({span[0]}, {span[1]}) does not lie in the text of 5 characters: 'a cat'"
            with pytest.raises(PhraseError, match=re.escape(expected)):
                Phrase.at("a cat", *span)


def test_a_span_of_white_space_is_refused() -> None:
    with pytest.raises(PhraseError, match=re.escape("The span (1, 2) holds only white space in the text 'a cat'")):
        Phrase.at("a cat", 1, 2)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(PhraseError) as caught:
        Phrase.find("x" * 5000, "cat")
    assert "xxx'..." in str(caught.value)
    assert len(str(caught.value)) < 500


@given(ANY_TEXT, st.data())
def test_any_span_of_any_text_is_its_words_or_a_typed_error(text: str, data: st.DataObject) -> None:
    start, end = data.draw(st.integers(-2, 32)), data.draw(st.integers(-2, 32))
    valid = 0 <= start < end <= len(text) and text[start:end].strip()
    if not valid:
        with pytest.raises(PhraseError):
            Phrase.at(text, start, end)
        return
    phrase = Phrase.at(text, start, end)
    assert text[phrase.start : phrase.end] == phrase.text == text[start:end].strip()
    assert start <= phrase.start < phrase.end <= end


@given(ANY_TEXT.filter(str.strip), st.data())
def test_the_words_of_a_span_are_found_again_unless_they_occur_elsewhere_too(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    words = text[start : data.draw(st.integers(start + 1, len(text)))].strip()
    places = [place for place in range(len(text)) if words and text.startswith(words, place)]
    if len(places) == 1:
        assert Phrase.find(text, words).span == (places[0], places[0] + len(words))
    else:
        with pytest.raises(PhraseError):
            Phrase.find(text, words)


def test_a_message_gives_its_texts_and_images_in_order() -> None:
    other = Image.new("RGB", (3, 3), "blue")
    message = Message("user", ("one ", IMAGE, "two", other, " three"))
    assert message.text == "one two three"
    assert [image.size for image in message.images] == [(6, 4), (3, 3)]


def test_an_unknown_role_is_refused_with_those_there_are() -> None:
    with pytest.raises(PromptError, match=r"Unknown role 'tool'\. Use one of system, user, assistant"):
        Message("tool", ("x",))


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(PromptError, match="message of the user is empty"):
        Message("user", ())


def test_a_message_refuses_what_is_neither_text_nor_image(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [3, None, b"x", np.zeros((2, 2, 3), np.uint8)]
    for part in cases:
        with subtests.test(part=part), pytest.raises(PromptError, match=f"holds a {type(part).__name__}.*load_image"):
            Message("user", (part,))


def test_a_message_refuses_a_bare_string_whose_letters_would_be_its_parts() -> None:
    with pytest.raises(PromptError, match=r"'hello'.*Give a tuple: \(text,\)"):
        Message("user", "hello")  # type: ignore[arg-type]


def test_an_image_of_a_message_goes_through_the_door() -> None:
    turned = Image.new("L", (6, 4))
    turned.getexif()[0x0112] = 6
    (image,) = Message("user", (turned,)).images
    assert (image.mode, image.size) == ("RGB", (4, 6))


def test_an_image_beyond_the_limits_is_refused_in_a_message_too() -> None:
    with pytest.raises(ImageError, match="aspect"):
        Message("user", (Image.new("RGB", (4000, 1)),))


def test_messages_and_prompts_are_frozen() -> None:
    prompt = Prompt.describe(IMAGE, "a cat", ["cat"])
    for item, name in ((prompt, "phrases"), (prompt.messages[0], "role"), (prompt.phrases[0], "start")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, None)


def test_describe_asks_the_standard_question_and_takes_the_text_as_the_answer() -> None:
    prompt = Prompt.describe(IMAGE, "a cat", ["cat"])
    assert [message.role for message in prompt.messages] == ["user", "assistant"]
    assert prompt.messages[0].text == DESCRIBE_QUESTION
    assert prompt.text == "a cat"
    assert prompt.images[0].tobytes() == IMAGE.tobytes()


def test_phrases_may_be_words_spans_and_phrases_in_any_order() -> None:
    prompt = Prompt.describe(IMAGE, "a cat, a dog", [(9, 12), "cat", Phrase("a", 0, 1), [7, 8]])  # type: ignore[list-item]
    assert [phrase.span for phrase in prompt.phrases] == [(9, 12), (2, 5), (0, 1), (7, 8)]


def test_a_phrase_of_another_form_is_refused_and_shown(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [(1, 2, 3), (1,), None, 4, (0.0, 1.0), ("a", "b")]
    for phrase in cases:
        with (
            subtests.test(phrase=phrase),
            pytest.raises(PhraseError, match=re.escape(f"A phrase is {phrase!r}. Give its words, or its span")),
        ):
            Prompt.describe(IMAGE, "a cat", [phrase])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_describe_refuses_a_blank_text(text: str) -> None:
    with pytest.raises(PromptError, match="text is blank"):
        Prompt.describe(IMAGE, text)


def test_a_hand_made_phrase_that_is_not_in_the_text_is_refused(subtests: pytest.Subtests) -> None:
    cases: list[Phrase] = [Phrase("dog", 0, 3), Phrase("cat", 1, 4), Phrase(" ", 1, 2), Phrase("", 0, 0)]
    for phrase in cases:
        with subtests.test(phrase=phrase), pytest.raises(PhraseError, match="does not match the text 'a cat'"):
            Prompt.describe(IMAGE, "a cat", [phrase])


def test_the_phrases_are_in_the_last_message() -> None:
    turns = [Message("user", (IMAGE, "a cat?")), Message("assistant", ("yes",)), Message("user", ("where is it",))]
    assert Prompt.chat(turns, ["where"]).phrases[0].span == (0, 5)
    with pytest.raises(PhraseError, match="'cat' is not in the text 'where is it'"):
        Prompt.chat(turns, ["cat"])


def test_a_phrase_may_straddle_two_texts_of_the_last_message() -> None:
    prompt = Prompt.chat([Message("user", ("a red ", IMAGE, "circle"))], ["red circle"])
    assert prompt.phrases[0].span == (2, 12)


def test_images_of_all_messages_count_in_order() -> None:
    turns = [
        Message("user", (IMAGE, "one")),
        Message("assistant", ("x",)),
        Message("user", (Image.new("RGB", (2, 9)),)),
    ]
    assert [image.size for image in Prompt.chat(turns).images] == [(6, 4), (2, 9)]


def test_a_prompt_without_messages_is_refused() -> None:
    with pytest.raises(PromptError, match="no message"):
        Prompt.chat([])


def test_a_prompt_without_an_image_is_refused() -> None:
    with pytest.raises(PromptError, match="no image"):
        Prompt.chat([Message("user", ("hello",))])


def test_a_question_follows_an_answer_whose_ids_are_kept() -> None:
    prompt = Prompt.chat([Message("user", (IMAGE, "What is it?"))]).answered(Answer("a cat", [5, 6]), ["a cat"])
    following = prompt.asked("Where?")
    assert [message.role for message in following.messages] == ["user", "assistant", "user"]
    assert following.messages[1].ids == (5, 6)
    assert (following.text, following.phrases, following.answer) == ("Where?", (), None)
    assert prompt.asked(Message("user", (IMAGE, "And here?"))).images == (IMAGE, IMAGE)


def test_the_ids_of_the_last_message_are_in_the_answer() -> None:
    messages = Message("user", (IMAGE, "What is it?")), Message("assistant", ("a cat",), [5, 6])
    prompt = Prompt.chat(messages)
    assert (prompt.answer, prompt.messages[1].ids) == (Answer("a cat", (5, 6)), None)
    assert dataclasses.replace(prompt, answer=None).answer is None
    assert prompt.asked("Where?").messages[:2] == messages


@pytest.mark.parametrize("message", [("user", ("a cat",)), ("assistant", ("a", " cat"))])
def test_only_one_text_of_the_assistant_has_ids(message: tuple[str, tuple[str, ...]]) -> None:
    with pytest.raises(PromptError, match="Only one text of the assistant has token ids"):
        Message(*message, [5])
