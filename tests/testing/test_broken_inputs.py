"""Every check of protocol and geometry fails on an adapter that is broken on purpose."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing import ALL_CHECKS, AdapterCase, checks_geometry, checks_protocol, checks_stock
from vlm_adapters.testing.breaking import break_arguments, break_grids, break_loaded, break_method, break_result
from vlm_adapters.testing.fake_model import IMAGE
from vlm_adapters.testing.fakes import FAKE_CASE, FakeAdapter

CHECKS = {check.__name__: check for check in ALL_CHECKS}


def set_info(**changes: Any) -> AdapterCase:
    return break_loaded(FAKE_CASE, lambda adapter: setattr(adapter, "info", replace(adapter.info, **changes)))


def move_phrases(move: Callable[[Tensor, Prompt], Tensor]) -> AdapterCase:
    def moved(inputs: BackboneInputs, prompts: Sequence[Prompt]) -> BackboneInputs:
        tokens = zip(inputs.phrase_tokens, prompts, strict=True)
        return replace(inputs, phrase_tokens=tuple(tuple(move(one, prompt) for one in of) for of, prompt in tokens))

    return break_result(FAKE_CASE, "preprocess", moved)


def regrid(change: Callable[[ImageGrid, Prompt], dict[str, Any]]) -> AdapterCase:
    def regridded(found: list[list[ImageGrid]], inputs: BackboneInputs) -> list[list[ImageGrid]]:
        pairs = zip(found, inputs.prompts, strict=True)
        return [[replace(grid, **change(grid, prompt)) for grid in grids] for grids, prompt in pairs]

    return break_result(FAKE_CASE, "locate_image_tokens", regridded)


def searched_anew(inputs: BackboneInputs, prompts: Sequence[Prompt]) -> BackboneInputs:
    """The first place of the words, whatever the span says."""
    (prompt,), (phrases,) = prompts, inputs.phrase_tokens
    tokens = zip(phrases, prompt.phrases, strict=True)
    anew = tuple(one - phrase.start + prompt.text.index(phrase.text) for one, phrase in tokens)
    return replace(inputs, phrase_tokens=(anew,))


def with_image_as_phrase(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    images = (inputs.tensors["input_ids"] == IMAGE).int().argmax(1, keepdim=True)
    pairs = zip(inputs.phrase_tokens, images, strict=True)
    return replace(inputs, phrase_tokens=tuple(tuple(torch.cat([image, one]) for one in of) for of, image in pairs))


def with_text_as_image(written: tuple[list[int], int], prompt: Prompt) -> tuple[list[int], int]:
    ids, start = written
    if "<image>" in prompt.text:
        ids[start + prompt.text.index("<image>")] = IMAGE
    return ids, start


def moved_by_text(inputs: BackboneInputs, prompts: Sequence[Prompt]) -> BackboneInputs:
    ids = inputs.tensors["input_ids"].roll(int("</s>" in prompts[0].text), dims=1)
    return replace(inputs, tensors={**inputs.tensors, "input_ids": ids})


def with_one_phrase(grids: Grids) -> dict[str, Any]:
    return {} if grids.row_phrases else {"row_phrases": (0,), "attention": torch.zeros(1, *grids.attention.shape[1:])}


def with_clamped_heads(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    heads = request.heads and [max(-3, min(head, 2)) for head in request.heads]
    return inputs, replace(request, heads=heads)


def with_late_phrases(inputs: BackboneInputs, request: GridRequest) -> tuple[BackboneInputs, GridRequest]:
    later = tuple(tuple(tokens.clamp(min=1) for tokens in of_prompt) for of_prompt in inputs.phrase_tokens)
    return replace(inputs, phrase_tokens=later), request


def blind(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    return replace(inputs, tensors={**inputs.tensors, "cells": torch.zeros_like(inputs.tensors["cells"])})


def without_first_token(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    ids, mask = inputs.tensors["input_ids"], inputs.tensors["attention_mask"]
    return replace(inputs, tensors={**inputs.tensors, "input_ids": ids[:, 1:], "attention_mask": mask[:, 1:]})


def with_one_image(written: tuple[list[int], int], prompt: Prompt) -> tuple[list[int], int]:
    ids, start = written
    of_second = sum(id_ == IMAGE for id_ in ids) // len(prompt.images) if len(prompt.images) > 1 else 0
    place = ids.index(IMAGE)
    return ids[:place] + ids[place + of_second :], start - of_second


def in_bytes(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    return replace(inputs, tensors={**inputs.tensors, "cells": inputs.tensors["cells"] * 255})


def in_reverse(inputs: BackboneInputs, _: Sequence[Prompt]) -> BackboneInputs:
    return replace(inputs, tensors={**inputs.tensors, "cells": inputs.tensors["cells"].flip(0)})


def crash_if_empty(prompts: Sequence[Prompt]) -> tuple[Sequence[Prompt]]:
    return (prompts if prompts[0] else (),)


def ask_the_network(prompts: Sequence[Prompt]) -> tuple[Sequence[Prompt]]:
    with suppress(OSError):
        socket.getaddrinfo("localhost", 80)
    return (prompts,)


def with_images_swapped(found: list[list[ImageGrid]], _: BackboneInputs) -> list[list[ImageGrid]]:
    for grids in found:
        if len(grids) == 2 and grids[0].shape == grids[1].shape:
            tokens = grids[1].tokens, grids[0].tokens
            grids[:] = [replace(grid, tokens=other) for grid, other in zip(grids, tokens, strict=True)]
    return found


BROKEN = [
    ("check_protocol", "other name", break_loaded(FAKE_CASE, lambda adapter: setattr(adapter, "name", "other"))),
    ("check_protocol", "no info", break_loaded(FAKE_CASE, lambda adapter: delattr(adapter, "info"))),
    ("check_info", "gap between layers forgotten", set_info(attention_layers=(0, 1))),
    ("check_info", "key heads for heads", set_info(num_heads=1)),
    ("check_info", "wrong width", set_info(hidden_size=16)),
    ("check_info", "wrong depth", set_info(num_layers=2)),
    ("check_phrases_spell_themselves", "one token early", move_phrases(lambda tokens, _: tokens - 1)),
    ("check_phrases_spell_themselves", "last token lost", move_phrases(lambda tokens, _: tokens[:-1])),
    (
        "check_phrase_among_other_scripts",
        "bytes for characters",
        move_phrases(lambda tokens, prompt: tokens + len(prompt.text[:13].encode()) - 13),
    ),
    ("check_repeated_words", "searched anew", break_result(FAKE_CASE, "preprocess", searched_anew)),
    (
        "check_phrase_tokens_are_text",
        "reaches the image",
        break_result(FAKE_CASE, "preprocess", with_image_as_phrase),
    ),
    ("check_phrase_tokens_are_text", "no token", move_phrases(lambda tokens, _: tokens[:0])),
    ("check_phrase_tokens_are_text", "descending", move_phrases(lambda tokens, _: tokens.flip(0))),
    ("check_phrase_tokens_are_text", "beyond the end", move_phrases(lambda tokens, _: tokens + 999)),
    ("check_control_tokens_are_text", "text as image", break_result(FAKE_CASE, "_encode", with_text_as_image)),
    ("check_control_tokens_are_text", "text moves image", break_result(FAKE_CASE, "preprocess", moved_by_text)),
    ("check_prompt_without_phrases", "always one phrase", break_grids(FAKE_CASE, with_one_phrase)),
    ("check_no_prompt_is_an_error", "crashes", break_arguments(FAKE_CASE, "preprocess", crash_if_empty)),
    ("check_wrong_requests_are_errors", "clamps heads", break_arguments(FAKE_CASE, "extract", with_clamped_heads)),
    ("check_predictor_of_first_token", "takes another", break_arguments(FAKE_CASE, "extract", with_late_phrases)),
    ("check_preprocess_uses_no_network", "asks it", break_arguments(FAKE_CASE, "preprocess", ask_the_network)),
    ("check_image_reaches_the_model", "pixels dropped", break_result(FAKE_CASE, "preprocess", blind)),
    ("check_ids_equal_stock", "start forgotten", break_result(FAKE_CASE, "preprocess", without_first_token)),
    ("check_ids_of_two_images_equal_stock", "an image lost", break_result(FAKE_CASE, "_encode", with_one_image)),
    ("check_pixels_equal_stock", "another scale", break_result(FAKE_CASE, "preprocess", in_bytes)),
    ("check_pixels_of_two_images_equal_stock", "reversed", break_result(FAKE_CASE, "preprocess", in_reverse)),
    (
        "check_grid_names",
        "untold second grid",
        break_loaded(FAKE_CASE, lambda adapter: setattr(adapter, "scales", (2, 1))),
    ),
    ("check_grid_shapes", "transposed", regrid(lambda grid, _: {"tokens": grid.tokens.T})),
    ("check_grid_shapes", "row lost", regrid(lambda grid, _: {"tokens": grid.tokens[: max(1, grid.shape[0] - 1)]})),
    ("check_cell_boxes", "transposed", regrid(lambda grid, _: {"tokens": grid.tokens.T})),
    (
        "check_cell_boxes",
        "padding forgotten",
        regrid(lambda _, prompt: {"box": (0, 0, prompt.images[0].width, prompt.images[0].height)}),
    ),
    ("check_cells_are_image_tokens", "one token late", regrid(lambda grid, _: {"tokens": grid.tokens + 1})),
    ("check_cells_are_image_tokens", "beyond the end", regrid(lambda grid, _: {"tokens": grid.tokens + 9999})),
    (
        "check_cells_are_image_tokens",
        "first row everywhere",
        regrid(lambda grid, _: {"tokens": grid.tokens[:1].expand(grid.shape)}),
    ),
    ("check_orientation", "columns first", regrid(lambda grid, _: {"tokens": grid.tokens.reshape(grid.shape[::-1]).T})),
    ("check_orientation", "upside down", regrid(lambda grid, _: {"tokens": grid.tokens.flip(0)})),
    ("check_orientation", "mirrored", regrid(lambda grid, _: {"tokens": grid.tokens.flip(1)})),
    ("check_orientation", "one token late", regrid(lambda grid, _: {"tokens": grid.tokens + 1})),
    ("check_several_images", "all one image", regrid(lambda *_: {"image": 0})),
    ("check_several_images", "same tokens", regrid(lambda grid, _: {"tokens": grid.tokens - grid.tokens.min() + 6})),
    (
        "check_several_images_are_not_mixed",
        "images swapped",
        break_result(FAKE_CASE, "locate_image_tokens", with_images_swapped),
    ),
]


@pytest.mark.parametrize(("check", "case"), [pytest.param(c, case, id=f"{c}: {how}") for c, how, case in BROKEN])
def test_check_fails(check: str, case: AdapterCase) -> None:
    with pytest.raises(AssertionError, match="expected"):
        CHECKS[check](case)


def test_every_check_is_shown_to_fail() -> None:
    modules = checks_protocol, checks_geometry, checks_stock
    defined = {check for check in CHECKS if any(hasattr(module, check) for module in modules)}
    assert {check for check, _, _ in BROKEN} == defined


def test_breaking_reaches_the_adapters_own_calls() -> None:
    case = break_method(FAKE_CASE, "_encode", lambda *_: pytest.fail("reached"))
    with pytest.raises(pytest.fail.Exception, match="reached"):
        CHECKS["check_info"](case)
    assert type(FAKE_CASE.load()) is FakeAdapter
