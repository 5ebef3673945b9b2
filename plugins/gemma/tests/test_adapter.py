"""What the suite's prompts do not show of the Gemma family: questions with phrases, refusals, sizes of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import GridRequest, Message, Prompt
from vlm_adapters.errors import PromptError
from vlm_adapters.testing import TransformersReference
from vlm_adapters_gemma.case import budget_grids
from vlm_adapters_gemma.tiny import LINE_BREAKS, gemma3, gemma4, paligemma

PALI, GEMMA4 = paligemma(), gemma4()
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def question(text: str, *phrases: str) -> Prompt:
    return Prompt.chat([Message("user", (IMAGE, text))], phrases)


def test_line_breaks_before_an_image_are_one_token_with_that_of_the_template() -> None:
    adapter = gemma3()
    ids = adapter.preprocess([question("a red circle")]).tensors["input_ids"][0].tolist()
    start = adapter.processor.tokenizer.boi_token_id
    assert adapter.processor.tokenizer.decode(ids[ids.index(start) - 1]) == LINE_BREAKS[1]


def test_a_phrase_of_the_question_has_the_rows_of_the_eager_kernel() -> None:
    prompt = question("detect a red circle and a star", "a red circle")
    inputs = PALI.preprocess([prompt])
    (grids,) = PALI.extract(inputs, GridRequest(reduce="none"))[0]
    with torch.no_grad():
        expected = TransformersReference().run(PALI, inputs)
    rows = expected.rows(0, inputs.phrase_tokens[0][0], grids.grid.tokens.flatten())
    torch.testing.assert_close(grids.attention.flatten(-2), rows, atol=1e-5, rtol=0)


def test_a_word_of_the_question_sees_the_words_after_it_and_a_word_of_the_answer_does_not() -> None:
    def rows(of: Prompt) -> torch.Tensor:
        return PALI.extract(PALI.preprocess([of]))[0][0].attention

    asked = [rows(question(text, "a star")) for text in ("find a star", "find a star now")]
    assert (asked[0] - asked[1]).abs().max() > 1e-3
    answered = [rows(Prompt.describe(IMAGE, text, ["a star"])) for text in ("a star", "a star now")]
    torch.testing.assert_close(answered[0], answered[1], atol=1e-5, rtol=0)


def test_the_answer_alone_is_causal() -> None:
    inputs = PALI.preprocess([Prompt.describe(IMAGE, "a star")])
    ids, types = (inputs.tensors[name][0] for name in ("input_ids", "token_type_ids"))
    assert PALI.processor.tokenizer.decode(ids[types == 1]) == "a star<eos>"


@pytest.mark.parametrize(
    "messages",
    [
        [Message("system", ("be brief",)), Message("user", (IMAGE, "a star"))],
        [Message("user", (IMAGE, "what?")), Message("assistant", ("a star",)), Message("user", ("a star",))],
        [Message("user", ("a star",)), Message("assistant", (IMAGE, "a star"))],
        [Message("user", (IMAGE, "what?")), Message("assistant", (IMAGE, "a star"))],
    ],
    ids=["system", "two questions", "no image in the question", "image in the answer"],
)
def test_paligemma_takes_one_question_about_images_and_its_answer(messages: list[Message]) -> None:
    with pytest.raises(PromptError, match="one question with at least one image"):
        PALI.preprocess([Prompt.chat(messages, ["a star"])])


@given(height=st.integers(3, 1200), width=st.integers(3, 1200))
@settings(max_examples=150, deadline=None)
def test_the_cells_fill_the_budget_at_the_aspect_of_the_image(height: int, width: int) -> None:
    ((layout,),) = GEMMA4.layouts([(height, width)])
    (grid,) = budget_grids((height, width))
    assert layout.cells == grid.shape
    assert layout.box == pytest.approx(grid.box)
