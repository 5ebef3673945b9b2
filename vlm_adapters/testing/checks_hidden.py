"""Checks of hidden states: their values, and the choice of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import different_prompts, prompt, require_agrees, require_equal, run


def check_hidden_grids(case: AdapterCase) -> None:
    """`hidden` holds every layer's states of the image tokens, cell by cell."""
    adapter = case.load()
    inputs = adapter.preprocess(different_prompts())
    expected = case.reference.run(case.load(attention="eager"), inputs).hidden
    for index, grids in enumerate(adapter.extract(inputs, GridRequest(hidden_layers=None))):
        for grid in grids:
            require_equal(
                grid.hidden_layers, tuple(range(adapter.info.num_layers)), "hidden_layers of a request for all"
            )
            for layer, found in zip(grid.hidden_layers, grid.hidden, strict=True):
                of_layer = expected[layer][index][grid.grid.tokens].permute(2, 0, 1)
                _require_states(case, found, of_layer, f"hidden states (D, h, w) of prompt {index} after layer {layer}")


def check_phrase_hidden(case: AdapterCase) -> None:
    """`phrase_hidden` holds every layer's states of the phrase's tokens."""
    adapter = case.load()
    inputs = adapter.preprocess(different_prompts())
    expected = case.reference.run(case.load(attention="eager"), inputs).hidden
    for index, grids in enumerate(adapter.extract(inputs, GridRequest(phrase_hidden_layers=None))):
        tokens = inputs.phrase_tokens[index]
        for grid in grids:
            require_equal(len(grid.phrase_hidden), len(tokens), f"entries of phrase_hidden of prompt {index}")
            for phrase, states in enumerate(grid.phrase_hidden):
                of_phrase = torch.stack([expected[layer][index][tokens[phrase]] for layer in grid.phrase_hidden_layers])
                _require_states(
                    case, states, of_phrase, f"hidden states (K, T, D) of phrase {phrase} of prompt {index}"
                )


def check_each_hidden_layer_alone(case: AdapterCase) -> None:
    """A request for one layer alone gives the states of that layer, for every layer."""
    adapter = case.load()
    inputs = adapter.preprocess([prompt()])
    expected = case.reference.run(case.load(attention="eager"), inputs).hidden
    for layer in range(adapter.info.num_layers):
        request = GridRequest(layers=(), hidden_layers=[layer], phrase_hidden_layers=[layer])
        for grid in adapter.extract(inputs, request)[0]:
            labels = (grid.hidden_layers, grid.phrase_hidden_layers)
            require_equal(labels, ((layer,), (layer,)), f"layers of a request for layer {layer} alone")
            of_layer = expected[layer][0][grid.grid.tokens].permute(2, 0, 1)
            _require_states(case, grid.hidden[0], of_layer, f"hidden states (D, h, w) of layer {layer} alone")
            for phrase, tokens in enumerate(inputs.phrase_tokens[0]):
                what = f"hidden states (T, D) of phrase {phrase} of layer {layer} alone"
                _require_states(case, grid.phrase_hidden[phrase][0], expected[layer][0][tokens], what)


def check_chosen_hidden_layers(case: AdapterCase) -> None:
    """Grids of hidden states are returned for the requested layers only, in their order; by default for none."""
    _require_chosen(case, "hidden_layers", lambda _, grids: grids.hidden, lambda grids: grids.hidden_layers)


def check_chosen_phrase_hidden_layers(case: AdapterCase) -> None:
    """Hidden states of phrases are returned for the requested layers only, in their order; by default for none."""

    def first_phrase(inputs: BackboneInputs, grids: Grids) -> Tensor:
        width = len(inputs.phrase_tokens[0][0])
        return grids.phrase_hidden[0] if grids.phrase_hidden else torch.zeros(0, width, grids.hidden.shape[1])

    _require_chosen(case, "phrase_hidden_layers", first_phrase, lambda grids: grids.phrase_hidden_layers)


def _require_chosen(
    case: AdapterCase,
    field: Literal["hidden_layers", "phrase_hidden_layers"],
    states: Callable[[BackboneInputs, Grids], Tensor],
    layers: Callable[[Grids], tuple[int, ...]],
) -> None:
    adapter = case.load()
    last = adapter.info.num_layers - 1
    inputs, grids = run(adapter, prompt(), _request(field, None))
    full = states(inputs, grids[0])
    for choice, expected in (([last, 0], (last, 0)), ([-1], (last,)), (1, (last,)), ((), ())):
        inputs, grids = run(adapter, prompt(), _request(field, choice))
        require_equal(layers(grids[0]), expected, f"layers of {field}={choice}")
        _require_states(case, states(inputs, grids[0]), full[list(expected)], f"states of {field}={choice}")
    require_equal(layers(run(adapter, prompt())[1][0]), (), f"layers of a request without {field}")


def _request(field: str, choice: int | list[int] | tuple[int, ...] | None) -> GridRequest:
    return GridRequest(hidden_layers=choice) if field == "hidden_layers" else GridRequest(phrase_hidden_layers=choice)


def _require_states(case: AdapterCase, found: Tensor, expected: Tensor, what: str) -> None:
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    require_agrees(case, found, expected, 1e-4 * scale, what)
