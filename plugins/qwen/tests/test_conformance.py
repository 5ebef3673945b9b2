"""The tiny random Qwen2.5-VL passes every check, and the checks that need a transformers model fail on broken ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.geometry import Box, CoordinateFrame
from vlm_adapters.prompt import Message, Prompt
from vlm_adapters.testing import (
    ALL_CHECKS,
    AdapterCase,
    Check,
    CheckSkipped,
    check_text_moves_no_image,
    checks_abilities,
    checks_answers,
    parametrize_with_checks,
)
from vlm_adapters.testing.breaking import break_arguments, break_loaded, break_method, break_result
from vlm_adapters_qwen.case import QWEN2_5_VL, QWEN2_VL, QWEN3_5, qwen_grids
from vlm_adapters_qwen.tiny import SPECIAL_TOKENS, qwen2_5_vl

CHECKS = {check.__name__: check for check in ALL_CHECKS}
Extract = Callable[[BackboneInputs, GridRequest], list[list[Grids]]]
Generate = Callable[..., Answer]


@parametrize_with_checks([QWEN2_5_VL])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("heads", [1, 4])
def test_rows_with_other_groups_of_key_heads(heads: int) -> None:
    case = replace(QWEN2_5_VL, load=partial(qwen2_5_vl, key_value_heads=heads))
    CHECKS["check_rows_equal_eager"](case)
    CHECKS["check_gradient_of_rows"](case)
    CHECKS["check_generation_equals_one_pass"](case)


def test_published_grids() -> None:
    assert [grid.shape for grid in qwen_grids((480, 640))] == [(17, 23)]


def to_eager(method: Extract, adapter: Any, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    """Get attention the easy way: the kernel is swapped, and stays so."""
    adapter.model.set_attn_implementation("eager")
    return method(inputs, request)


def ask_for_outputs(method: Extract, adapter: Any, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    adapter.model(**inputs.tensors, output_hidden_states=True)
    return method(inputs, request)


def leave_a_hook(method: Extract, adapter: Any, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    adapter.model.lm_head.register_forward_hook(lambda _module, _arguments, logits: logits + 1e-3)
    return method(inputs, request)


def next_rows(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    earlier = tuple(tuple(tokens - 1 for tokens in of_prompt) for of_prompt in inputs.phrase_tokens)
    return replace(inputs, phrase_tokens=earlier), request


def columns_first(found: list[list[ImageGrid]], _: BackboneInputs) -> list[list[ImageGrid]]:
    return [[replace(grid, tokens=grid.tokens.reshape(grid.shape[::-1]).T) for grid in grids] for grids in found]


def square(method: Extract, _: object, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    """Every row is asked for, whatever the phrase."""
    length = inputs.tensors["input_ids"].shape[1]
    if any(inputs.phrase_tokens):
        method(replace(inputs, phrase_tokens=((torch.arange(length),),)), request)
    return method(inputs, request)


def half_detached(method: Extract, _: object, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    return [
        [replace(grids, attention=(grids.attention + grids.attention.detach()) / 2) for grids in of_prompt]
        for of_prompt in method(inputs, request)
    ]


def as_the_checkpoint_likes(_: object, adapter: Any, prompt: Prompt, max_new_tokens: int = 256) -> Answer:
    """Generation with the settings that the checkpoint brings, sampling or not."""
    tensors = adapter.preprocess([prompt]).tensors
    ids = adapter.model.generate(**tensors, max_new_tokens=max_new_tokens)
    new = ids[0, tensors["input_ids"].shape[1] :].tolist()
    return Answer(adapter.processor.tokenizer.decode(new, skip_special_tokens=True), new)


def answer_anyone(generate: Generate, _: object, prompt: Prompt, max_new_tokens: int = 256) -> Answer:
    return generate(Prompt(prompt.messages[:1]), max_new_tokens)


def answer_longer(generate: Generate, _: object, prompt: Prompt, max_new_tokens: int = 256) -> Answer:
    return generate(prompt, max_new_tokens + 1)


def answer_and(change: Callable[[Any], object]) -> Generate:
    def answer(generate: Generate, adapter: Any, prompt: Prompt, max_new_tokens: int = 256) -> Answer:
        change(adapter.model)
        return generate(prompt, max_new_tokens)

    return answer


def shouted(answer: Answer, *_: object) -> Answer:
    return Answer(answer.text + "!", answer.ids)


def by_the_text(preprocess: Callable[..., BackboneInputs], _: object, prompts: Sequence[Prompt]) -> BackboneInputs:
    """The inputs of prompts whose answers have lost their tokens."""
    return preprocess([replace(prompt, answer=None) for prompt in prompts])


def earlier_cut(preprocess: Callable[..., BackboneInputs], _: object, prompts: Sequence[Prompt]) -> BackboneInputs:
    """The inputs of prompts whose earlier answers have lost a token."""
    messages = [tuple(shortened(each) if each.ids else each for each in prompt.messages) for prompt in prompts]
    return preprocess([replace(prompt, messages=cut) for prompt, cut in zip(prompts, messages, strict=True)])


def shortened(message: Message) -> Message:
    return Message(message.role, (message.text[:-1],))


def one_token_later(preprocess: Callable[..., BackboneInputs], _: object, prompts: Sequence[Prompt]) -> BackboneInputs:
    inputs = preprocess(prompts)
    later = tuple(tuple(tokens + 1 for tokens in of_prompt) for of_prompt in inputs.phrase_tokens)
    return replace(inputs, phrase_tokens=later)


def rows_moved(result: tuple[Answer, list[Grids]], *_: object) -> tuple[Answer, list[Grids]]:
    answer, found = result
    rolled = [replace(grids, attention=grids.attention.roll(1, 0)) for grids in found]
    return answer, rolled


def louder(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.mul_(2)


def frames(change: Callable[[CoordinateFrame, tuple[int, int]], object]) -> AdapterCase:
    return break_result(QWEN2_5_VL, "coordinate_frame", change)


class NoWayBack(CoordinateFrame):
    """Whole numbers only, on the way to the frame."""

    def from_image(self, box: Box, size: tuple[int, int]) -> Box:
        left, top, right, bottom = map(round, super().from_image(box, size))
        return left, top, right, bottom


COUNT = itertools.count(1)
BROKEN_ABILITIES = [
    ("check_answer_is_the_likeliest", "settings", break_method(QWEN2_5_VL, "generate", as_the_checkpoint_likes)),
    ("check_answer_is_the_likeliest", "longer", break_method(QWEN2_5_VL, "generate", answer_longer)),
    (
        "check_answer_is_the_likeliest",
        "reversed",
        break_result(QWEN2_5_VL, "generate", lambda answer, *_: Answer(answer.text, answer.ids[::-1])),
    ),
    ("check_answering_changes_nothing", "mode", break_method(QWEN2_5_VL, "generate", answer_and(nn.Module.train))),
    ("check_answering_changes_nothing", "weights", break_method(QWEN2_5_VL, "generate", answer_and(louder))),
    (
        "check_answering_changes_nothing",
        "different answers",
        break_result(QWEN2_5_VL, "generate", lambda answer, *_: Answer(f"{answer.text} {next(COUNT)}", answer.ids)),
    ),
    ("check_answer_is_the_likeliest", "other words", break_result(QWEN2_5_VL, "generate", shouted)),
    ("check_only_a_user_is_answered", "anyone", break_method(QWEN2_5_VL, "generate", answer_anyone)),
    ("check_answer_is_read_by_its_tokens", "text", break_method(QWEN2_5_VL, "preprocess", by_the_text)),
    ("check_answer_is_read_by_its_tokens", "phrase", break_method(QWEN2_5_VL, "preprocess", one_token_later)),
    ("check_earlier_answer_is_read_by_its_tokens", "cut", break_method(QWEN2_5_VL, "preprocess", earlier_cut)),
    ("check_rows_while_answering", "text", break_method(QWEN2_5_VL, "preprocess", by_the_text)),
    ("check_rows_while_answering", "late", break_result(QWEN2_5_VL, "generate_with_grids", rows_moved)),
    ("check_frame_of_coordinates", "numbers", frames(lambda frame, _: (frame.width, frame.height))),
    ("check_frame_of_coordinates", "some sizes", frames(lambda frame, size: frame if size[0] % 2 else None)),
    ("check_frame_of_coordinates", "different frames", frames(lambda *_: CoordinateFrame(next(COUNT), 1))),
    ("check_frame_of_coordinates", "rounded", frames(lambda *_: NoWayBack(10, 10))),
]


@pytest.mark.parametrize(("check", "case"), [pytest.param(c, of, id=f"{c}: {how}") for c, how, of in BROKEN_ABILITIES])
def test_check_fails_on_broken_ability(check: str, case: AdapterCase) -> None:
    with pytest.raises(AssertionError, match="expected"):
        CHECKS[check](case)


def test_every_check_of_abilities_is_shown_to_fail() -> None:
    of_abilities = {name for module in (checks_abilities, checks_answers) for name in CHECKS if hasattr(module, name)}
    assert {check for check, _, _ in BROKEN_ABILITIES} == of_abilities


@pytest.mark.parametrize("case", [QWEN2_VL, QWEN3_5])
def test_a_model_that_is_not_known_to_point_is_not_checked_for_it(case: AdapterCase) -> None:
    with pytest.raises(CheckSkipped, match="its model is not known to point"):
        CHECKS["check_frame_of_coordinates"](case)


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param("check_capture_changes_no_logits", break_method(QWEN2_5_VL, "extract", to_eager), id="kernel"),
        pytest.param("check_capture_changes_no_logits", break_method(QWEN2_5_VL, "extract", leave_a_hook), id="hook"),
        pytest.param(
            "check_extract_asks_for_no_outputs", break_method(QWEN2_5_VL, "extract", ask_for_outputs), id="outputs"
        ),
        pytest.param(
            "check_generation_equals_one_pass", break_arguments(QWEN2_5_VL, "extract", next_rows), id="row too early"
        ),
        pytest.param("check_gradient_of_rows", break_method(QWEN2_5_VL, "extract", half_detached), id="half of it"),
        pytest.param("check_nothing_square", break_method(QWEN2_5_VL, "extract", square), id="all rows"),
        pytest.param(
            "check_stays_in_eval_mode", break_loaded(QWEN2_5_VL, lambda adapter: adapter.model.train()), id="training"
        ),
        pytest.param(
            "check_orientation", break_result(QWEN2_5_VL, "locate_image_tokens", columns_first), id="columns first"
        ),
    ],
)
def test_check_fails_on_broken_adapter(check: str, case: AdapterCase) -> None:
    with pytest.raises(AssertionError, match="expected"):
        CHECKS[check](case)


TEXTS = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SPECIAL_TOKENS)), min_size=1, max_size=5).map("".join)
ADAPTER = qwen2_5_vl()


@settings(max_examples=100, deadline=None)
@given(TEXTS.filter(str.strip))
def test_no_text_moves_the_image(text: str) -> None:
    check_text_moves_no_image(QWEN2_5_VL, text, ADAPTER)
