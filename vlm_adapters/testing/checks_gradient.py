"""Checks of gradient: that of the model itself if requested, else none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.grids import BackboneInputs, Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import CaptureError
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.reference import ReferencePass
from vlm_adapters.testing.support import (
    CheckSkipped,
    by_phrase,
    cells,
    different_prompts,
    hidden,
    maps,
    module_of,
    prompt,
    require,
    require_agrees,
    require_equal,
)

_STATES = GridRequest(hidden_layers=None, phrase_hidden_layers=None, gradient=True)
_REDUCTIONS: tuple[Literal["mean", "max", "last", "none"], ...] = ("mean", "max", "last", "none")


def check_gradient_of_rows(case: AdapterCase) -> None:
    """With `gradient=True`, attention gives every parameter the gradient of the eager kernel's weights."""
    for reduce in _REDUCTIONS:

        def of_eager(
            shown: ReferencePass, inputs: BackboneInputs, index: int, columns: Tensor, reduce: str = reduce
        ) -> list[Tensor]:
            tokens = inputs.phrase_tokens[index]
            rows = shown.rows(index, torch.cat([torch.empty(0, dtype=torch.long), *tokens]), columns)
            return [by_phrase(rows, tokens, reduce)]

        request = GridRequest(reduce=reduce, gradient=True)
        _require_gradient(case, request, lambda grids: [maps(grids)], of_eager, f'attention with reduce="{reduce}"')


def check_gradient_of_hidden_states(case: AdapterCase) -> None:
    """With `gradient=True`, hidden states give every parameter the gradient of the model's own hidden states."""

    def of_model(shown: ReferencePass, inputs: BackboneInputs, index: int, columns: Tensor) -> list[Tensor]:
        states = torch.stack([shown.hidden[layer][index] for layer in sorted(shown.hidden)])
        return [states[:, columns].transpose(1, 2), *(states[:, tokens] for tokens in inputs.phrase_tokens[index])]

    _require_gradient(case, _STATES, lambda grids: [hidden(grids), *grids[0].phrase_hidden], of_model, "hidden states")


def check_gradient_only_where_asked(case: AdapterCase) -> None:
    """Results carry no gradient unless the request asks for it, torch has it enabled, and a parameter requires it."""
    adapter = case.load()
    inputs = adapter.preprocess([prompt()])
    frozen = _extract(adapter, inputs, _STATES)[0]
    module_of(adapter).requires_grad_(requires_grad=True)
    with torch.no_grad():
        disabled = _extract(adapter, inputs, _STATES)[0]
    not_requested = adapter.extract(inputs, replace(_STATES, gradient=False))[0]
    for what, grids in (
        ("no parameter requires one", frozen),
        ("under torch.no_grad()", disabled),
        ("gradient=False", not_requested),
    ):
        for name, tensor in (
            ("attention", maps(grids)),
            ("hidden", hidden(grids)),
            ("phrase_hidden", grids[0].phrase_hidden[0]),
        ):
            require(not tensor.requires_grad, f"{name}, {what}: expected no gradient, found requires_grad")


def check_gradient_keeps_the_mode(case: AdapterCase) -> None:
    """Extraction with gradient leaves a model in training or eval mode as it is."""
    adapter = case.load()
    module = module_of(adapter).requires_grad_(requires_grad=True)
    inputs = adapter.preprocess([prompt()])
    for training in (True, False):
        module.train(training)
        _extract(adapter, inputs, _STATES)
        modes = {part.training for part in module.modules()}
        require_equal(modes, {training}, f"training mode of the model's modules after extraction with {training}")


class _Scalar:
    """A scalar function of the tensors of a batch: a sum with fixed random weights."""

    def __init__(self) -> None:
        self._weights = torch.Generator().manual_seed(0)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        parts = [
            (tensor * torch.randn(tensor.shape, generator=self._weights).to(tensor.device)).sum() for tensor in tensors
        ]
        return torch.stack(parts).sum()


def _require_gradient(
    case: AdapterCase,
    request: GridRequest,
    found: Callable[[Sequence[Grids]], list[Tensor]],
    expected: Callable[[ReferencePass, BackboneInputs, int, Tensor], list[Tensor]],
    what: str,
) -> None:
    adapter, oracle = case.load(), case.load(attention="eager")
    modules = [module_of(one).requires_grad_(requires_grad=True) for one in (adapter, oracle)]
    case.reference.set_padding_side(adapter, "left")
    inputs = adapter.preprocess(different_prompts())
    extracted = _extract(adapter, inputs, request)
    shown = case.reference.run(oracle, inputs)
    of_oracle = [
        tensor for index, grids in enumerate(extracted) for tensor in expected(shown, inputs, index, cells(grids))
    ]
    exact = _gradients(_Scalar()(of_oracle), modules[1], f"{what} of AdapterCase.reference.run")
    extracted_gradients = _gradients(
        _Scalar()([tensor for grids in extracted for tensor in found(grids)]), modules[0], what
    )
    if case.dtype != torch.float32:  # many are zero but for rounding, so only all together can be compared
        found_all, exact_all = (
            torch.cat([one.flatten() for one in grads.values()]) for grads in (extracted_gradients, exact)
        )
        require_agrees(case, found_all, exact_all, 0.0, f"gradient of {what} by all parameters", rough=0.25)
        return
    largest = max(gradient.abs().max().item() for gradient in exact.values())
    for name, gradient in exact.items():
        # A gradient that is zero but for rounding, such as that of a key's bias, is compared at the others' scale.
        tolerance = max(1e-3 * gradient.abs().max().item(), 1e-6 * largest)
        require_agrees(case, extracted_gradients[name], gradient, tolerance, f"gradient of {what} by {name}")


def _extract(adapter: BackboneAdapter, inputs: BackboneInputs, request: GridRequest) -> Sequence[Sequence[Grids]]:
    try:
        return adapter.extract(inputs, request)
    except CaptureError as error:
        raise CheckSkipped(f"gives no gradient: {error}") from error


def _gradients(scalar: Tensor, module: nn.Module, what: str) -> Mapping[str, Tensor]:
    """Gradient of a scalar by every parameter; zeros where it does not depend on one."""
    require(scalar.requires_grad, f"{what}: expected a gradient, found none")
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(scalar, parameters, materialize_grads=True)
    return dict(zip(names, gradients, strict=True))
