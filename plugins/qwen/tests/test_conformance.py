"""The tiny random Qwen2.5-VL passes every check, and the checks that need a transformers model fail on broken ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.backbone import BackboneInputs, Grids, ImageGrid
from vlm_adapters.request import GridRequest
from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, check_text_moves_no_picture, parametrize_with_checks
from vlm_adapters.testing.breaking import break_arguments, break_loaded, break_method, break_result
from vlm_adapters_qwen.case import QWEN2_5_VL, qwen_grids
from vlm_adapters_qwen.tiny import SPECIAL_TOKENS, qwen2_5_vl

CHECKS = {check.__name__: check for check in ALL_CHECKS}
Extract = Callable[[BackboneInputs, GridRequest], list[list[Grids]]]


@parametrize_with_checks([QWEN2_5_VL])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("heads", [1, 4])
def test_rows_with_other_groups_of_key_heads(heads: int) -> None:
    case = replace(QWEN2_5_VL, load=partial(qwen2_5_vl, key_value_heads=heads))
    CHECKS["check_rows_equal_eager"](case)
    CHECKS["check_generation_equals_one_pass"](case)


def test_published_grids() -> None:
    assert [grid.shape for grid in qwen_grids((480, 640))] == [(17, 23)]


def to_eager(method: Extract, adapter: Any, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
    """Get attention the easy way: the kernel is swapped, and stays so."""
    adapter.model.set_attn_implementation("eager")
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


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param("check_capture_changes_no_logits", break_method(QWEN2_5_VL, "extract", to_eager), id="kernel"),
        pytest.param("check_capture_changes_no_logits", break_method(QWEN2_5_VL, "extract", leave_a_hook), id="hook"),
        pytest.param(
            "check_generation_equals_one_pass", break_arguments(QWEN2_5_VL, "extract", next_rows), id="row too early"
        ),
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
def test_no_text_moves_the_picture(text: str) -> None:
    check_text_moves_no_picture(QWEN2_5_VL, text, ADAPTER)
