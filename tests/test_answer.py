"""Answers, and prompts that carry them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters import Answer, Message, Phrase, Prompt
from vlm_adapters.errors import PhraseError, PromptError

QUESTION = Prompt.chat([Message("user", (Image.new("RGB", (8, 8)), "What is this?"))])


@pytest.mark.parametrize("ids", [[3, 1, 2], (3, 1, 2), torch.tensor([3, 1, 2]), np.array([3, 1, 2], np.int32)])
def test_ids_of_any_library_are_plain_ints(ids: object) -> None:
    answer = Answer("a cat", ids)  # type: ignore[arg-type]
    assert answer.ids == (3, 1, 2)
    assert all(type(id_) is int for id_ in answer.ids)
    assert answer == Answer("a cat", [3, 1, 2])


@pytest.mark.parametrize("ids", ["12", [1.5], [True], 7, [None], [[1]]])
def test_ids_are_whole_numbers(ids: object) -> None:
    with pytest.raises(PromptError, match=re.escape("Give a list of whole numbers.")):
        Answer("a cat", ids)  # type: ignore[arg-type]


def test_ids_are_not_negative() -> None:
    with pytest.raises(PromptError, match=r"The token ids of an answer hold -1\."):
        Answer("a cat", [4, -1])


def test_the_text_is_a_string() -> None:
    with pytest.raises(PromptError, match=r"The text of an answer is 5\. Give a string\."):
        Answer(5)  # type: ignore[arg-type]


def test_an_answered_prompt_ends_with_the_answer() -> None:
    answer = Answer("a cat on a mat", [1, 2])
    prompt = QUESTION.answered(answer, ["a mat"])
    assert prompt.messages == (*QUESTION.messages, Message("assistant", ("a cat on a mat",)))
    assert prompt.phrases == (Phrase("a mat", 9, 14),)
    assert (prompt.answer, prompt.question) == (answer, QUESTION)


def test_a_text_is_an_answer_without_ids() -> None:
    assert QUESTION.answered("a cat").answer == Answer("a cat", None)


def test_a_model_may_say_nothing() -> None:
    assert QUESTION.answered(Answer("", [2])).text == ""


def test_a_phrase_is_looked_for_in_the_answer() -> None:
    with pytest.raises(PhraseError, match="'a dog' is not in the text 'a cat'"):
        QUESTION.answered(Answer("a cat", [1]), ["a dog"])


def test_only_a_user_is_answered() -> None:
    with pytest.raises(PromptError, match="does not follow a message of the user"):
        QUESTION.answered("a cat").answered("a dog")


def test_the_answer_is_the_last_message() -> None:
    with pytest.raises(PromptError, match="is not the last message"):
        Prompt((*QUESTION.messages, Message("assistant", ("a dog",))), (), Answer("a cat", [1]))
