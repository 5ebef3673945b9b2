"""Prompts in the forms in which people hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_adapters.conversion import as_prompts, iterate_prompts
from vlm_adapters.errors import ImageError, PhraseError, PromptError
from vlm_adapters.prompt import Message, Prompt

IMAGE = Image.new("RGB", (6, 4), "red")
TEXT = "a cat on a mat"
PROMPT = Prompt.describe(IMAGE, TEXT, ["a cat"])
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
]


def phrases(prompt: Prompt) -> list[str]:
    return [phrase.text for phrase in prompt.phrases]


@pytest.mark.parametrize("given", [PROMPT, [PROMPT], (PROMPT,), (IMAGE, TEXT, ["a cat"]), [(IMAGE, TEXT, [(0, 5)])]])
def test_one_prompt_in_any_form_is_that_prompt(given: Any) -> None:
    assert as_prompts(given) == [PROMPT]


def test_a_pair_of_prompts_is_two_prompts() -> None:
    assert as_prompts((PROMPT, PROMPT)) == [PROMPT, PROMPT]


def test_without_phrases_the_whole_text_is_one_and_an_empty_list_is_none() -> None:
    found = as_prompts([(IMAGE, f" {TEXT} "), (IMAGE, TEXT, None), (IMAGE, TEXT, [])])
    assert [phrases(prompt) for prompt in found] == [[TEXT], [TEXT], []]


def test_a_generator_is_taken_one_prompt_at_a_time() -> None:
    taken: list[int] = []

    def images() -> Any:
        for index in range(3):
            taken.append(index)
            yield IMAGE, TEXT

    given = iterate_prompts(images())
    assert next(given).text == TEXT
    assert taken == [0]
    assert len(list(given)) == 2


def test_a_chat_of_transformers_is_the_prompt_of_its_messages() -> None:
    messages = [Message("system", ("Be brief.",)), Message("user", (IMAGE, "What is it?"))]
    expected = Prompt.chat([*messages, Message("assistant", (TEXT,))], [TEXT])
    assert as_prompts(CHAT) == as_prompts([CHAT]) == [expected]
    assert as_prompts([CHAT, CHAT]) == [expected, expected]
    assert Prompt.chat(CHAT, ["a mat"]).phrases == Prompt.describe(IMAGE, TEXT, ["a mat"]).phrases


def test_messages_and_dicts_stand_in_one_chat() -> None:
    mixed = [CHAT[0], Message("user", (IMAGE, "What is it?")), CHAT[2]]
    assert as_prompts(mixed) == as_prompts(CHAT)


@pytest.mark.parametrize("key", ["image", "path", "url"])
def test_an_image_of_a_chat_may_be_a_file(key: str, tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "image.png")
    chat = [{"role": "user", "content": [{"type": "image", key: str(tmp_path / "image.png")}, "What is it?"]}]
    assert Prompt.chat(chat) == Prompt.chat([Message("user", (IMAGE, "What is it?"))])


def test_a_url_in_a_chat_is_not_opened() -> None:
    with pytest.raises(ImageError, match="is a URL"):
        as_prompts([{"role": "user", "content": [{"type": "image", "url": "https://example.org/cat.png"}]}])


@pytest.mark.parametrize("given", [[], (), iter(())])
def test_no_prompt_is_told_from_a_wrong_one(given: Any) -> None:
    with pytest.raises(PromptError, match=r"^There is no prompt in this \w+\. Give at least one: a Prompt, \(ima"):
        as_prompts(given)


@pytest.mark.parametrize("given", [5, "photo.jpg", b"x", None, {"role": "user"}, [5], [(IMAGE, 5)], [[IMAGE, TEXT]]])
def test_another_form_is_refused_with_those_that_are_taken(given: Any) -> None:
    with pytest.raises(PromptError, match=r"^A prompt is given as .* Give a Prompt, \(image, text\), \(image"):
        as_prompts(given)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user"}, r"has the keys \['role'\]"),
        ({"role": "user", "content": "x", "name": "me"}, r"has the keys \['role', 'content', 'name'\]"),
        ({"role": "user", "content": 5}, "The content of a message is 5"),
        ({"role": "tool", "content": "x"}, "Unknown role 'tool'"),
        ({"role": "user", "content": [5]}, "A part of a message is 5"),
        ({"role": "user", "content": [{"type": "image"}]}, "An image of a chat is missing"),
        (
            {"role": "user", "content": [{"type": "image", "image": IMAGE, "scale": 4}]},
            r"\['image', 'scale'\]",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            r"'image_url'.*\"image\": an image",
        ),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "has type 'text'"),
    ],
)
def test_a_message_in_another_form_is_refused(message: dict[str, Any], expected: str) -> None:
    with pytest.raises(PromptError, match=expected):
        as_prompts([message])


def test_a_text_that_is_no_string_is_called_so() -> None:
    with pytest.raises(PromptError, match=r"^The text is 5, of type int\. Give a string"):
        Prompt.describe(IMAGE, 5)  # type: ignore[arg-type]


def test_a_phrase_that_is_missing_is_an_error_in_every_form() -> None:
    with pytest.raises(PhraseError, match="'a dog' is not in the text"):
        as_prompts((IMAGE, TEXT, ["a dog"]))
