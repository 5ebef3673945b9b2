"""What Fuyu sees and reads, against its stock processor."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters import Message, Prompt
from vlm_adapters.errors import ImageError, PromptError
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters_fuyu.adapter import PIXELS
from vlm_adapters_fuyu.tiny import fuyu

ADAPTER = fuyu()


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_patches_and_tokens_are_those_of_the_stock_processor(subtests: pytest.Subtests) -> None:
    for size in [(48, 64), (33, 90), (300, 200), (9, 9)]:
        with subtests.test(size=size):
            image = noise(*size)
            # The whole stock call cuts off a token that only the published tokenizer writes before the image.
            process = ADAPTER.processor._process_images  # noqa: SLF001
            legacy = {name: False for name in signature(process).parameters if name.startswith("return_legacy")}
            stock, (written,) = process([image], return_tensors="pt", **legacy)
            inputs = ADAPTER.preprocess([Prompt.describe(image, "a circle")])
            assert torch.equal(inputs.tensors[PIXELS], stock[PIXELS])
            shown = ADAPTER.processor.tokenizer.decode(inputs.tensors["input_ids"][0, inputs.image_tokens[0][0]])
            assert shown + "<s>" == written


def test_the_prompt_is_image_start_question_answer() -> None:
    inputs = ADAPTER.preprocess([Prompt.describe(noise(32, 32), "a circle")])
    text = ADAPTER.processor.tokenizer.decode(inputs.tensors["input_ids"][0])
    row = "|SPEAKER||SPEAKER||NEWLINE|"
    assert text == f"{row}{row}<s>{DESCRIBE_QUESTION}\n<0x04>a circle</s>"


@pytest.mark.parametrize(
    "messages",
    [
        [Message("user", (noise(9, 9), noise(9, 9), "Which?"))],
        [Message("system", ("Be kind.",)), Message("user", (noise(9, 9), "What is it?"))],
    ],
)
def test_other_conversations_are_typed_errors(messages: list[Message]) -> None:
    with pytest.raises(PromptError, match=r"one image in one question.*Ask one question at a time"):
        ADAPTER.preprocess([Prompt.chat(messages)])


def test_an_image_that_shrinks_to_nothing_is_a_typed_error() -> None:
    with pytest.raises(ImageError, match=r"1 x 190 pixels has no pixel left across.*160 x 160.*Crop it"):
        ADAPTER.layouts([(190, 1)])
