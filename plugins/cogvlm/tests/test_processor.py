"""Prompts and images: tokens in the published order, the published formats, a squashed image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters import Message, Prompt
from vlm_adapters.errors import CheckpointError, ImageError, PromptError
from vlm_adapters_cogvlm.adapter import CogVLMAdapter
from vlm_adapters_cogvlm.processor import CogVLMProcessor, image_processor
from vlm_adapters_cogvlm.tiny import PATCH, SIDE, cogvlm, tiny_config, tiny_tokenizer

IMAGE = Image.new("RGB", (40, 20))
TOKENS = (SIDE // PATCH) ** 2 + 2


def text_of(version: str, *messages: Message) -> str:
    return cogvlm(template_version=version).render(Prompt(messages)).text.removeprefix("<unk>")


@pytest.mark.parametrize("legacy", [False, True], ids=["space before a text only", "space before each part"])
def test_the_text_is_encoded_apart_from_the_image(llama_tokenizer: Any, *, legacy: bool) -> None:
    """As the published code does it, whatever the tokenizer does with a word behind a control token."""
    tokenizer = llama_tokenizer(legacy=legacy)
    processor = CogVLMProcessor.of(tiny_config(vocab_size=len(tokenizer)), tokenizer)
    adapter = CogVLMAdapter(cogvlm().model, processor)
    prompt = Prompt.chat([Message("user", (IMAGE, "What?")), Message("assistant", ("a red cat",))], ["red cat"])
    expected = tokenizer("Question: What? Answer: a red cat</s>", add_special_tokens=False)["input_ids"]
    inputs = adapter.preprocess([prompt])
    ids = inputs.tensors["input_ids"][0].tolist()
    assert ids == [1] + [0] * TOKENS + expected
    assert processor(text="<unk>Question: What? Answer: a red cat</s>")["input_ids"] == [ids]
    assert tokenizer.convert_ids_to_tokens([ids[p] for p in inputs.phrase_tokens[0][0]]) == ["▁red", "▁cat"]


def test_token_types_say_where_the_image_is() -> None:
    adapter = cogvlm()
    inputs = adapter.preprocess([Prompt.describe(IMAGE, "a red cat", ["cat"])])
    types = inputs.tensors["token_type_ids"][0].tolist()
    assert types[: 1 + TOKENS] == [0] + [1] * TOKENS
    assert set(types[1 + TOKENS :]) == {0}
    (grid,) = adapter.locate_image_tokens(inputs)[0]
    assert grid.tokens.flatten().tolist() == list(range(2, TOKENS))  # behind the begin token and that of the image


QUESTION = Message("user", (IMAGE, "What is this?"))
ANSWER = Message("assistant", ("a cat",))


def test_a_chat_has_questions_and_answers() -> None:
    more = Message("user", ("Where?",))
    assert text_of("chat", QUESTION) == "Question: What is this? Answer:"
    assert text_of("chat", QUESTION, ANSWER) == "Question: What is this? Answer: a cat</s>"
    asked_again = "Question: What is this? Answer: a cat\nQuestion: Where? Answer:"
    assert text_of("chat", QUESTION, ANSWER, more) == asked_again


def test_a_base_checkpoint_gets_the_question_alone() -> None:
    assert text_of("base", QUESTION) == "What is this?"
    assert text_of("base", QUESTION, ANSWER) == "What is this? a cat</s>"


@pytest.mark.parametrize(
    ("version", "messages"),
    [("base", (QUESTION, ANSWER, QUESTION)), ("chat", (Message("system", ("Be brief.",)), QUESTION))],
)
def test_what_the_format_has_no_place_for_is_refused(version: str, messages: tuple[Message, ...]) -> None:
    with pytest.raises(PromptError, match="does not take these messages"):
        text_of(version, *messages)


def test_another_format_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"template_version 'vqa'.*chat, base"):
        CogVLMProcessor.of(tiny_config(template_version="vqa"), tiny_tokenizer())


def test_several_images_are_refused() -> None:
    with pytest.raises(ImageError, match="one image per prompt, and 2"):
        cogvlm().preprocess([Prompt([Message("user", (IMAGE, IMAGE, "What?"))])])


def test_an_image_is_squashed_by_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (97, 311, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = np.asarray(image.resize((490, 490), Image.Resampling.BICUBIC), np.float64) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    deviation = np.array([0.26862954, 0.26130258, 0.27577711])
    expected = torch.from_numpy((resized - mean) / deviation).permute(2, 0, 1).float()
    found: Any = image_processor(490)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
