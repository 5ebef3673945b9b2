"""Attention that is steered, against attention that is written out with the same number added to its scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from vlm_adapters import GridRequest, Message, Prompt, TransformersBackbone, load_adapter
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.errors import CaptureError, OptionError, RequestError
from vlm_adapters.hf import steered_attention
from vlm_adapters.prompt import DESCRIBE_QUESTION

SCENE = Scenes(1, seed=HELD_OUT_SEED)[0]
BOX = (0.0, 0.0, SCENE.image.width / 2, SCENE.image.height / 2)
HEADS = [(0, 1), (0, 5), (2, 3)]
STRENGTH = 3.0
MODELS = [(model, "sdpa") for model in ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")]
MODELS.append(("tiny-llava", "eager"))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def adapter(request: pytest.FixtureRequest) -> TransformersBackbone:
    model, kernel = request.param
    return load_adapter(model, attn_implementation=kernel)


@pytest.fixture(scope="module")
def llava() -> TransformersBackbone:
    return load_adapter("tiny-llava")


def inputs_of(adapter: TransformersBackbone) -> BackboneInputs:
    return adapter.preprocess([Prompt.describe(SCENE.image, SCENE.text, [SCENE.phrases[0].text])])


def logits(adapter: TransformersBackbone, inputs: BackboneInputs) -> Tensor:
    with torch.no_grad():
        found: Tensor = adapter.model(**inputs.tensors).logits
    return found


@contextmanager
def written_out(adapter: TransformersBackbone, inputs: BackboneInputs) -> Iterator[None]:
    """Attention of the language model in plain words, with the number added where it belongs."""
    (grid,) = adapter.locate_image_tokens(inputs)[0]
    assert grid.box is not None
    h, w = grid.shape
    left, top, right, bottom = grid.box
    y = top + (torch.arange(h) + 0.5) * (bottom - top) / h
    x = left + (torch.arange(w) + 0.5) * (right - left) / w
    keys = grid.tokens[(y < BOX[3])[:, None] & (y >= 0)[:, None] & (x < BOX[2]) & (x >= 0)]
    after = int(grid.tokens.max())

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _: Any, **options: Any
    ) -> tuple[Tensor, None]:
        each = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(each, 1), value.repeat_interleave(each, 1)
        scores = torch.einsum("bnqd,bnkd->bnqk", query, key) * options["scaling"]
        end = key.shape[2]
        positions = torch.arange(end - query.shape[2], end)
        for layer, head in HEADS:
            if module.layer_idx == layer:
                for row, position in enumerate(positions.tolist()):
                    if position > after:
                        scores[0, head, row, keys] += STRENGTH
        scores = scores.masked_fill(torch.arange(end) > positions[:, None], float("-inf"))
        return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("written_out", attention)
    config = adapter.model.config.get_text_config()
    kernel = config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    config._attn_implementation = "written_out"  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = kernel  # noqa: SLF001


def test_steering_is_a_number_added_to_the_scores(adapter: TransformersBackbone) -> None:
    inputs = inputs_of(adapter)
    with steered_attention(adapter, inputs, BOX, HEADS, STRENGTH):
        steered = logits(adapter, inputs)
    with written_out(adapter, inputs):
        expected = logits(adapter, inputs)
    torch.testing.assert_close(steered, expected, atol=2e-4, rtol=1e-4)
    assert (steered - logits(adapter, inputs)).abs().max() > 0.01


def test_passes_outside_the_block_are_what_they_were_to_the_bit(adapter: TransformersBackbone) -> None:
    inputs = inputs_of(adapter)
    before = logits(adapter, inputs)
    with steered_attention(adapter, inputs, BOX, HEADS, STRENGTH):
        logits(adapter, inputs)
    assert torch.equal(logits(adapter, inputs), before)


def test_an_answer_is_steered_token_by_token(adapter: TransformersBackbone) -> None:
    question = Prompt.chat([Message("user", (SCENE.image, DESCRIBE_QUESTION))])
    inputs = adapter.preprocess([question])
    with steered_attention(adapter, inputs, BOX, HEADS, STRENGTH):
        answer = adapter.generate(question, max_new_tokens=8)
    answered = adapter.preprocess([question.answered(answer)])
    count = len(answer.ids or ())
    with written_out(adapter, answered):
        likeliest = logits(adapter, answered)[0, -count - 1 : -1].argmax(-1).tolist()
    assert likeliest == list(answer.ids or ())


def test_blocks_within_each_other_add_up(llava: TransformersBackbone) -> None:
    inputs = inputs_of(llava)
    with steered_attention(llava, inputs, BOX, HEADS, 1.0), steered_attention(llava, inputs, BOX, HEADS, 2.0):
        twice = logits(llava, inputs)
    with steered_attention(llava, inputs, BOX, HEADS, 3.0):
        torch.testing.assert_close(twice, logits(llava, inputs), atol=1e-4, rtol=1e-4)


def test_sequences_of_a_padded_batch_are_steered_as_each_alone(llava: TransformersBackbone) -> None:
    prompts = [Prompt.describe(SCENE.image, text) for text in ("a red", SCENE.text)]
    batch = llava.preprocess(prompts)
    with steered_attention(llava, batch, BOX, HEADS, STRENGTH):
        together = logits(llava, batch)
    for row, prompt, mask in zip(together, prompts, batch.tensors["attention_mask"].bool(), strict=True):
        alone = llava.preprocess([prompt])
        with steered_attention(llava, alone, BOX, HEADS, STRENGTH):
            torch.testing.assert_close(row[mask], logits(llava, alone)[0], atol=2e-4, rtol=1e-3)


def test_what_cannot_be_steered_is_refused(llava: TransformersBackbone) -> None:
    inputs = inputs_of(llava)
    with (
        pytest.raises(RequestError, match=r"There is no head 0\.99\. llava has 8 heads"),
        steered_attention(llava, inputs, BOX, [(0, 99)], 1.0),
    ):
        pass
    with (
        pytest.raises(OptionError, match="holds no centre of an image token"),
        steered_attention(llava, inputs, (0, 0, 1, 1), HEADS, 1.0),
    ):
        pass
    with (
        steered_attention(llava, inputs, BOX, HEADS, 1.0),
        pytest.raises(CaptureError, match="Rows cannot be recorded where attention is steered"),
    ):
        llava.extract(inputs, GridRequest(layers=[0]))
    batch = llava.preprocess([*inputs.prompts, *inputs.prompts])
    with (
        steered_attention(llava, inputs, BOX, HEADS, 1.0),
        pytest.raises(CaptureError, match="steered in 1 sequences, and the model ran 2"),
    ):
        logits(llava, batch)
