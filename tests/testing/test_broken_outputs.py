"""Every check of what comes out, of batches and of conduct fails on an adapter that is broken on purpose."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing import (
    ALL_CHECKS,
    AdapterCase,
    checks_attention,
    checks_batch,
    checks_conduct,
    checks_gradient,
    checks_hidden,
)
from vlm_adapters.testing.breaking import break_arguments, break_grids, break_loaded, break_method, break_result
from vlm_adapters.testing.fake_model import ATTENTION_LAYERS
from vlm_adapters.testing.fakes import FAKE_CASE, FakeAdapter

CHECKS = {check.__name__: check for check in ALL_CHECKS}
Result = list[list[Grids]]
Extract = Callable[[BackboneInputs, GridRequest], Result]


def attention(change: Callable[[Tensor], Tensor]) -> AdapterCase:
    return break_grids(FAKE_CASE, lambda grids: {"attention": change(grids.attention)})


def states(change: Callable[[Tensor], Tensor]) -> AdapterCase:
    return break_grids(
        FAKE_CASE,
        lambda grids: {"hidden": change(grids.hidden), "phrase_hidden": tuple(map(change, grids.phrase_hidden))},
    )


def ask(change: Callable[[GridRequest], dict[str, Any]]) -> AdapterCase:
    """Another request than the one that came."""
    return break_arguments(FAKE_CASE, "extract", lambda inputs, request: (inputs, replace(request, **change(request))))


def extract(around: Callable[[Extract, FakeAdapter, BackboneInputs, GridRequest], Result]) -> AdapterCase:
    return break_method(FAKE_CASE, "extract", around)


def earlier_rows(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    earlier = tuple(tuple(tokens - 1 for tokens in of_prompt) for of_prompt in inputs.phrase_tokens)
    return replace(inputs, phrase_tokens=earlier), request


def wrong_beside_eager(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    result = method(inputs, request)
    half = [[replace(grids, attention=grids.attention / 2) for grids in of_prompt] for of_prompt in result]
    return half if adapter.model.eager else result


def rough_in_half(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    rough = next(adapter.model.parameters()).dtype == torch.bfloat16
    result = method(inputs, request)
    root = [[replace(grids, attention=grids.attention.sqrt()) for grids in of_prompt] for of_prompt in result]
    return root if rough else result


def keeps_half(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    dtype = next(adapter.model.parameters()).dtype
    return [[replace(grids, attention=grids.attention.to(dtype)) for grids in of] for of in method(inputs, request)]


def length_matters(result: Result, inputs: BackboneInputs, _: GridRequest) -> Result:
    share = 1 - 1e-3 * inputs.tensors["input_ids"].shape[1]
    return [[replace(grids, attention=grids.attention * share) for grids in of_prompt] for of_prompt in result]


def first_layers(method: Extract, _: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    """As many layers as were asked for, with the right labels, but from the first."""
    pairs = zip(method(inputs, request), method(inputs, replace(request, layers=None)), strict=True)
    return [
        [replace(one, attention=all_.attention[:, : len(one.layers)]) for one, all_ in zip(asked, every, strict=True)]
        for asked, every in pairs
    ]


def sorted_heads(grids: Grids) -> dict[str, Any]:
    return {"attention": grids.attention[:, :, sorted(range(len(grids.heads)), key=grids.heads.__getitem__)]}


def next_layer(asked: GridRequest) -> dict[str, Any]:
    (layer,) = asked.hidden_layers  # type: ignore[misc]  # asked for as a list
    return {"hidden_layers": [(layer + 1) % 3], "phrase_hidden_layers": [(layer + 1) % 3]}


def mislabelled(method: Extract, _: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    """The states of the next layer under the name of the one asked for."""
    result = method(inputs, replace(request, **next_layer(request)))
    labels = {"hidden_layers": request.hidden_layers, "phrase_hidden_layers": request.phrase_hidden_layers}
    return [[replace(grids, **labels) for grids in of_prompt] for of_prompt in result]


def sorted_layers(grids: Grids) -> dict[str, Any]:
    order = sorted(range(len(grids.hidden_layers)), key=grids.hidden_layers.__getitem__)
    of_phrases = sorted(range(len(grids.phrase_hidden_layers)), key=grids.phrase_hidden_layers.__getitem__)
    return {"hidden": grids.hidden[order], "phrase_hidden": tuple(one[of_phrases] for one in grids.phrase_hidden)}


def without_mask(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    everything = torch.ones_like(inputs.tensors["attention_mask"])
    return replace(inputs, tensors={**inputs.tensors, "attention_mask": everything}), request


def as_if_left(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    """Phrases where they stood if the padding were on the left."""
    mask = inputs.tensors["attention_mask"]
    shifts = (mask.shape[1] - mask.sum(1)) * mask[:, 0]
    pairs = zip(inputs.phrase_tokens, shifts, strict=True)
    return replace(inputs, phrase_tokens=tuple(tuple(tokens + shift for tokens in of) for of, shift in pairs))


def divided_by_batch(result: Result, *_: object) -> Result:
    return [[replace(grids, attention=grids.attention / len(result)) for grids in of_prompt] for of_prompt in result]


def swap_kernel(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    adapter.model.eager = any(inputs.phrase_tokens)
    return method(inputs, request)


def drift(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    adapter.model.see.weight.mul_(1.001)
    return method(inputs, request)


def leave_eval(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    result = method(inputs, request)
    adapter.model.think.train()
    return result


def centre_in_place(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    inputs.tensors["cells"].sub_(0.5)
    return inputs, request


def move_in_place(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    inputs.phrase_tokens[0][0].sub_(1)
    return inputs, request


def draw(prompts: Sequence[Prompt]) -> tuple[Sequence[Prompt]]:
    prompts[0].images[0].putpixel((0, 0), (0, 0, 0))
    return (prompts,)


def all_rows(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    batch, length = inputs.tensors["input_ids"].shape
    adapter.model(**inputs.tensors, row_positions=[torch.arange(length if any(inputs.phrase_tokens) else 0)] * batch)
    return method(inputs, request)


def half_detached(tensor: Tensor) -> Tensor:
    return (tensor + tensor.detach()) / 2


def mean_for_max(method: Extract, _: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    """The values of the maximum with the gradient of the mean."""
    result = method(inputs, request)
    if request.reduce != "max":
        return result
    pairs = zip(result, method(inputs, replace(request, reduce="mean")), strict=True)
    return [
        [
            replace(one, attention=one.attention.detach() + other.attention - other.attention.detach())
            for one, other in zip(largest, mean, strict=True)
        ]
        for largest, mean in pairs
    ]


def always_enabled(method: Extract, _: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    with torch.enable_grad():
        return method(inputs, request)


def into_the_input(method: Extract, _: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    """Something requires a gradient that the user did not ask it of."""
    cells = inputs.tensors["cells"].clone().requires_grad_(request.gradient)
    return method(replace(inputs, tensors={**inputs.tensors, "cells": cells}), request)


def to_eval(method: Extract, adapter: FakeAdapter, inputs: BackboneInputs, request: GridRequest) -> Result:
    adapter.model.eval()
    return method(inputs, request)


def keep_state(method: Extract, adapter: Any, inputs: BackboneInputs, request: GridRequest) -> Result:
    adapter.inputs = inputs
    time.sleep(0.01)
    return method(adapter.inputs, request)


BROKEN = [
    ("check_rows_equal_eager", "renormalised", attention(lambda maps: maps / maps.sum((-1, -2), keepdim=True))),
    ("check_rows_equal_eager", "heads swapped", attention(lambda maps: maps.flip(2))),
    ("check_rows_equal_eager", "layers swapped", attention(lambda maps: maps.flip(1))),
    ("check_rows_equal_eager", "row too early", break_arguments(FAKE_CASE, "extract", earlier_rows)),
    ("check_rows_beside_eager_kernel", "wrong there", extract(wrong_beside_eager)),
    ("check_predictor_is_one_earlier", "ignored", ask(lambda _: {"align": "token"})),
    ("check_predictor_is_one_earlier", "two earlier", break_arguments(FAKE_CASE, "extract", earlier_rows)),
    ("check_mean_of_rows", "max", ask(lambda asked: {"reduce": "max" if asked.reduce == "mean" else asked.reduce})),
    ("check_max_of_rows", "mean", ask(lambda asked: {"reduce": "mean" if asked.reduce == "max" else asked.reduce})),
    ("check_last_of_rows", "mean", ask(lambda asked: {"reduce": "mean" if asked.reduce == "last" else asked.reduce})),
    (
        "check_row_phrases",
        "rows numbered",
        break_grids(FAKE_CASE, lambda grids: {"row_phrases": tuple(range(len(grids.row_phrases)))}),
    ),
    ("check_phrase_alone_and_beside_others", "they compete", attention(lambda maps: maps / maps.sum(0))),
    ("check_later_text_changes_no_row", "length matters", break_result(FAKE_CASE, "extract", length_matters)),
    ("check_chosen_layers", "the first ones", extract(first_layers)),
    (
        "check_chosen_layers",
        "renumbered",
        break_grids(FAKE_CASE, lambda grids: {"layers": tuple(map(ATTENTION_LAYERS.index, grids.layers))}),
    ),
    ("check_chosen_heads", "sorted", break_grids(FAKE_CASE, sorted_heads)),
    ("check_attention_is_a_share", "scores", attention(torch.log)),
    ("check_attention_is_a_share", "too much", attention(lambda maps: (maps * 2).clamp(max=1))),
    ("check_attention_is_a_share", "not a number", attention(lambda maps: maps / 0 * 0)),
    ("check_attention_is_a_share", "double precision", attention(torch.Tensor.double)),
    ("check_precisions_agree", "rough in bfloat16", extract(rough_in_half)),
    ("check_precisions_agree", "bfloat16 comes out", extract(keeps_half)),
    ("check_hidden_grids", "layer off by one", states(lambda hidden: hidden.roll(1, dims=0))),
    ("check_hidden_grids", "transposed", states(lambda hidden: hidden.transpose(-1, -2).reshape(hidden.shape))),
    ("check_phrase_hidden", "layer off by one", states(lambda hidden: hidden.roll(1, dims=0))),
    (
        "check_phrase_hidden",
        "other phrase",
        break_grids(FAKE_CASE, lambda grids: {"phrase_hidden": grids.phrase_hidden[::-1]}),
    ),
    ("check_each_hidden_layer_alone", "the next one", ask(next_layer)),
    ("check_each_hidden_layer_alone", "mislabelled", extract(mislabelled)),
    ("check_chosen_hidden_layers", "all of them", ask(lambda _: {"hidden_layers": None})),
    ("check_chosen_hidden_layers", "sorted", break_grids(FAKE_CASE, sorted_layers)),
    ("check_chosen_phrase_hidden_layers", "all of them", ask(lambda _: {"phrase_hidden_layers": None})),
    ("check_chosen_phrase_hidden_layers", "sorted", break_grids(FAKE_CASE, sorted_layers)),
    ("check_gradient_of_rows", "detached", attention(Tensor.detach)),
    ("check_gradient_of_rows", "half of it", attention(half_detached)),
    ("check_gradient_of_rows", "that of the mean", extract(mean_for_max)),
    ("check_gradient_of_rows", "flag ignored", ask(lambda _: {"gradient": False})),
    ("check_gradient_of_hidden_states", "detached", states(Tensor.detach)),
    ("check_gradient_of_hidden_states", "half of it", states(half_detached)),
    (
        "check_gradient_of_hidden_states",
        "none of the phrases",
        break_grids(FAKE_CASE, lambda grids: {"phrase_hidden": tuple(map(Tensor.detach, grids.phrase_hidden))}),
    ),
    ("check_gradient_only_where_asked", "always", ask(lambda _: {"gradient": True})),
    ("check_gradient_only_where_asked", "even where disabled", extract(always_enabled)),
    ("check_gradient_only_where_asked", "into the input", extract(into_the_input)),
    ("check_gradient_keeps_the_mode", "to eval mode", extract(to_eval)),
    ("check_gradient_keeps_the_mode", "to training mode", extract(leave_eval)),
    ("check_left_padded_batch_equals_samples", "mask dropped", break_arguments(FAKE_CASE, "extract", without_mask)),
    ("check_left_padded_batch_equals_samples", "divided by it", break_result(FAKE_CASE, "extract", divided_by_batch)),
    ("check_right_padded_batch_equals_samples", "as if left", break_result(FAKE_CASE, "preprocess", as_if_left)),
    ("check_batch_keeps_its_order", "reversed", break_result(FAKE_CASE, "extract", lambda result, *_: result[::-1])),
    ("check_texts_of_one_image_equal_samples", "divided by it", break_result(FAKE_CASE, "extract", divided_by_batch)),
    ("check_deterministic", "noise", attention(lambda maps: maps + 1e-6 * torch.rand(maps.shape))),
    ("check_capture_changes_no_states", "kernel swapped", extract(swap_kernel)),
    ("check_no_gradient", "not frozen", break_loaded(FAKE_CASE, lambda adapter: adapter.model.requires_grad_())),
    ("check_no_gradient", "outputs have one", states(lambda hidden: hidden.clone().requires_grad_())),
    ("check_parameters_unchanged", "weights drift", extract(drift)),
    ("check_stays_in_eval_mode", "leaves it", extract(leave_eval)),
    ("check_inputs_not_mutated", "centred in place", break_arguments(FAKE_CASE, "extract", centre_in_place)),
    ("check_inputs_not_mutated", "phrases moved in place", break_arguments(FAKE_CASE, "extract", move_in_place)),
    ("check_prompts_not_mutated", "draws on it", break_arguments(FAKE_CASE, "preprocess", draw)),
    ("check_nothing_square", "all rows", extract(all_rows)),
    ("check_threads", "keeps state", extract(keep_state)),
    ("check_spawned_process", "nowhere to be found", break_loaded(FAKE_CASE, lambda _: None)),
]


@pytest.mark.parametrize(("check", "case"), [pytest.param(c, case, id=f"{c}: {how}") for c, how, case in BROKEN])
def test_check_fails(check: str, case: AdapterCase) -> None:
    with pytest.raises(AssertionError, match="expected"):
        CHECKS[check](case)


def test_every_check_is_shown_to_fail() -> None:
    modules = checks_attention, checks_hidden, checks_gradient, checks_batch, checks_conduct
    defined = {check for check in CHECKS if any(hasattr(module, check) for module in modules)}
    assert {check for check, _, _ in BROKEN} == defined


def test_spawned_process_with_other_weights_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unsteady_plugin.py").write_text(
        "from multiprocessing import parent_process\n"
        "from vlm_adapters.testing.fakes import FakeAdapter\n\n"
        "def load(**options):\n"
        "    adapter = FakeAdapter(**options)\n"
        "    adapter.model.mix['0'].weight.mul_(2 if parent_process() else 1)\n"
        "    return adapter\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    case = replace(FAKE_CASE, load=importlib.import_module("unsteady_plugin").load)
    with pytest.raises(AssertionError, match="attention from a spawned process"):
        CHECKS["check_spawned_process"](case)
