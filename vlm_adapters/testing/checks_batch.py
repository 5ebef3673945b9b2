"""Checks that a batch of different prompts gives the same as its prompts one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import different_prompts, maps, prompt, require, require_agrees, require_equal, run


def check_left_padded_batch_equals_samples(case: AdapterCase) -> None:
    """Every prompt of a batch padded on the left gives the same as alone."""
    _require_batch_equals_samples(case, "left")


def check_right_padded_batch_equals_samples(case: AdapterCase) -> None:
    """Every prompt of a batch padded on the right gives the same as alone."""
    _require_batch_equals_samples(case, "right")


def check_batch_keeps_its_order(case: AdapterCase) -> None:
    """Prompts of equal length, which need no padding, keep their order in a batch."""
    adapter = case.load()
    prompts = [prompt(seed=seed) for seed in range(3)]
    batch = adapter.extract(adapter.preprocess(prompts), GridRequest())
    for index, (one, of_batch) in enumerate(zip(prompts, batch, strict=True)):
        require_agrees(
            case,
            maps(of_batch),
            maps(run(adapter, one)[1]),
            1e-5,
            f"prompt {index} of a batch, attention (P, L, n, cell)",
        )


def check_texts_of_one_image_equal_samples(case: AdapterCase) -> None:
    """Several texts about one image give the same as each alone, whether or not they share a pass."""
    adapter = case.load()
    texts = ("a red circle", "a blue star and a red circle", "two grey squares, a red circle", "a red circle")
    about_one = [prompt(text=text, phrases=["a red circle"]) for text in texts]
    prompts = [about_one[0], prompt(seed=1), *about_one[1:]]
    _require_equals_samples(case, adapter, prompts, adapter.preprocess(prompts), "a batch with one image four times")


def _require_batch_equals_samples(case: AdapterCase, side: Literal["left", "right"]) -> None:
    adapter = case.load()
    case.reference.set_padding_side(adapter, side)
    prompts = different_prompts()
    inputs = adapter.preprocess(prompts)
    _require_padding(case, adapter, prompts, inputs, side)
    _require_equals_samples(case, adapter, prompts, inputs, f"a batch padded on the {side}")


def _require_equals_samples(
    case: AdapterCase, adapter: BackboneAdapter, prompts: Sequence[Prompt], inputs: BackboneInputs, batch: str
) -> None:
    request = GridRequest(hidden_layers=None, phrase_hidden_layers=None)
    for index, (one, of_batch) in enumerate(zip(prompts, adapter.extract(inputs, request), strict=True)):
        alone = run(adapter, one, request)[1]
        what = f"prompt {index} of {batch}"
        require_equal(
            [grid.grid.shape for grid in of_batch], [grid.grid.shape for grid in alone], f"{what}, grid shapes"
        )
        require_equal([grid.grid.box for grid in of_batch], [grid.grid.box for grid in alone], f"{what}, boxes")
        require_agrees(case, maps(of_batch), maps(alone), 1e-5, f"{what}, attention (P, L, n, cell)")
        for found, expected in zip(of_batch, alone, strict=True):
            tolerance = 1e-4 * max(1.0, expected.hidden.abs().max().item())
            require_agrees(case, found.hidden, expected.hidden, tolerance, f"{what}, hidden (K, D, h, w)")
            for phrase, (states, of_one) in enumerate(zip(found.phrase_hidden, expected.phrase_hidden, strict=True)):
                require_agrees(case, states, of_one, tolerance, f"{what}, hidden (K, T, D) of phrase {phrase}")


def _require_padding(
    case: AdapterCase, adapter: BackboneAdapter, prompts: Sequence[Prompt], inputs: BackboneInputs, side: str
) -> None:
    """Make sure that the padding is on the side that the check is about."""
    starts = _first_image_tokens(case, adapter, inputs)
    alone = [_first_image_tokens(case, adapter, adapter.preprocess([one]))[0] for one in prompts]
    position = "other positions than" if side == "left" else "the positions that they have"
    require(
        (starts != alone) == (side == "left"),
        f"a batch padded on the {side}: expected the first image tokens at {position} in prompts alone, which is "
        f"{alone}, found {starts}; AdapterCase.reference.set_padding_side has no effect",
    )


def _first_image_tokens(case: AdapterCase, adapter: BackboneAdapter, inputs: BackboneInputs) -> list[int]:
    return case.reference.image_positions(adapter, inputs).to(torch.uint8).argmax(dim=1).tolist()
