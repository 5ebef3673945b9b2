"""From recorded rows and hidden states to `Grids`, for every adapter over a transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.errors import BackboneError, RequestError
from vlm_adapters.hf.capture import RowRecorder, capture_rows
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.language_model import stop_after, without_compiled_code
from vlm_adapters.hf.likelihood import token_log_probabilities
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.hf.shared_prefix import CACHE_NAMES, ForwardPass
from vlm_adapters.registry.versions import typed_errors


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with its layers and heads resolved to true indices.

    Attributes:
        layers: Layers whose attention is extracted.
        heads: Heads extracted from each of these layers.
        hidden_layers: Layers whose hidden states are extracted as grids.
        phrase_hidden_layers: Layers whose hidden states are extracted at the phrases.
        log_probability_layers: The last layer, if log probabilities of the phrases' tokens are computed from it.
        reduce: How the planned rows of a phrase become one map.
        width: Width `D` of the hidden states.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    hidden_layers: tuple[int, ...]
    phrase_hidden_layers: tuple[int, ...]
    log_probability_layers: tuple[int, ...]
    reduce: Literal["mean", "max", "none"]
    width: int

    @classmethod
    def of(cls, request: GridRequest, info: BackboneInfo) -> Self:
        """Resolve a request against the layers and heads of a backbone.

        Raises:
            RequestError: The request names layers or heads that do not exist.
        """
        every = range(info.num_layers)
        return cls(
            layers=resolve_layers(request.layers, info.attention_layers),
            heads=resolve_heads(request.heads, info.num_heads),
            hidden_layers=resolve_layers(request.hidden_layers, every),
            phrase_hidden_layers=resolve_layers(request.phrase_hidden_layers, every),
            log_probability_layers=tuple(every[-1:]) if request.phrase_log_probabilities else (),
            reduce="mean" if request.reduce == "last" else request.reduce,
            width=info.hidden_size,
        )

    @property
    def last_layer(self) -> int:
        """The last layer that has to run."""
        chosen = self.layers, self.hidden_layers, self.phrase_hidden_layers, self.log_probability_layers
        return max((layer for layers in chosen for layer in layers), default=0)

    def rows(self, plan: RowPlan) -> tuple[int, ...]:
        """The phrase of every entry of the first axis."""
        phrases = plan.groups.tolist()
        return tuple(phrases if self.reduce == "none" else sorted(set(phrases)))

    def grids(self, image_grids: Sequence[ImageGrid], plan: RowPlan, captured: Captured) -> list[Grids]:
        """Build the `Grids` of one prompt; its grids are in the order of the plan's columns."""
        sizes = [grid.tokens.numel() for grid in image_grids]
        by_grid = captured.attention.split(sizes, -1), captured.hidden.split(sizes, 1)
        return [
            Grids(
                grid=grid,
                attention=maps.unflatten(-1, grid.shape),
                layers=self.layers,
                heads=self.heads,
                row_phrases=self.rows(plan),
                hidden=states.transpose(1, 2).unflatten(-1, grid.shape),
                hidden_layers=self.hidden_layers,
                phrase_hidden=captured.phrase_hidden,
                phrase_hidden_layers=self.phrase_hidden_layers,
                phrase_log_probabilities=captured.phrase_log_probabilities,
                phrase_gaps=captured.phrase_gaps,
            )
            for grid, maps, states in zip(image_grids, *by_grid, strict=True)
        ]


@dataclass(frozen=True)
class Captured:
    """What a pass showed of one prompt.

    Attributes:
        attention: `(P or R, L, n, C)`.
        hidden: `(K, C, D)`: hidden states of the image tokens.
        phrase_hidden: Per phrase `(K, T, D)`.
        phrase_log_probabilities: Per phrase `(T,)`; empty where they were not requested.
        phrase_gaps: Likewise: what the likeliest token has more.
    """

    attention: Tensor
    hidden: Tensor
    phrase_hidden: tuple[Tensor, ...]
    phrase_log_probabilities: tuple[Tensor, ...] = ()
    phrase_gaps: tuple[Tensor, ...] = ()


def capture_pass(
    model: PreTrainedModel,
    forward_pass: ForwardPass,
    inputs: BackboneInputs,
    plans: Sequence[RowPlan],
    request: ResolvedRequest,
) -> Iterator[tuple[int, Captured]]:
    """Run the model once, no further than the request needs.

    Args:
        model: The model.
        forward_pass: What to run.
        inputs: The batch that it is a part of.
        plans: The rows and columns of every prompt of the batch.
        request: What is captured.

    Yields:
        Every prompt of the pass with what was captured of it.

    Raises:
        CaptureError: Rows, or their gradient, cannot be computed exactly.
        BackboneError: The model raised an error.
    """
    device = inputs.tensors["input_ids"].device
    places = forward_pass.places
    of_sequences = [RowPlan.joined([plans[b].moved(places[b]) for b in prompts]) for prompts in forward_pass.prompts]
    phrases, predictors = _positions(forward_pass, inputs), _positions(forward_pass, inputs, earlier=1)
    cells = [plan.columns for plan in of_sequences]
    with (
        without_compiled_code(model),
        capture_rows(model, of_sequences, request.layers, request.reduce, request.heads) as recorder,
        capture_hidden_states(model, request.hidden_layers, cells, device) as of_cells,
        capture_hidden_states(model, request.phrase_hidden_layers, phrases, device) as of_phrases,
        capture_hidden_states(model, request.log_probability_layers, predictors, device) as of_predictors,
        typed_errors(f"The forward pass of {model.config.model_type}", BackboneError),
    ):
        # The base model: logits over the vocabulary are not needed, and can be the largest tensor of all.
        body: nn.Module = model.base_model
        options = _cache(body) if len(forward_pass.calls) > 1 else {}
        uses_cache = bool(options)
        if "logits_to_keep" in signature(type(body).forward).parameters:  # a family without a base model
            options["logits_to_keep"] = 1
        for tensors in forward_pass.calls:
            with stop_after(model, request.last_layer):
                body(**tensors, use_cache=uses_cache, **options)
    for sequence, prompts in enumerate(forward_pass.prompts):
        maps = recorded_attention(request, recorder, of_sequences[sequence], sequence, device)
        hidden = of_cells.at(sequence, request.hidden_layers, request.width)
        states = of_phrases.at(sequence, request.phrase_hidden_layers, request.width)
        predicting = of_predictors.at(sequence, request.log_probability_layers, request.width)
        lengths = [[len(tokens) for tokens in inputs.phrase_tokens[b]] for b in prompts]
        totals = [sum(of_prompt) for of_prompt in lengths]
        rows = maps.split([len(request.rows(plans[b])) for b in prompts])
        of_prompts = zip(
            prompts, rows, states.split(totals, dim=1), predicting.split(totals, dim=1), lengths, strict=True
        )
        for b, of_rows, of_prompt, before, length in of_prompts:
            likelihood = _log_probabilities(model, inputs, b, before)
            yield b, Captured(of_rows, hidden, of_prompt.split(length, dim=1), *likelihood)


def _positions(forward_pass: ForwardPass, inputs: BackboneInputs, *, earlier: int = 0) -> list[Tensor]:
    """Where the tokens of the phrases of every sequence of a pass are, or the positions so many tokens earlier."""
    nothing, places = torch.empty(0, dtype=torch.long), forward_pass.places
    return [
        torch.cat(
            [nothing]
            + [places[b][(tokens - earlier).clamp(min=0)] for b in prompts for tokens in inputs.phrase_tokens[b]]
        )
        for prompts in forward_pass.prompts
    ]


def _log_probabilities(
    model: PreTrainedModel, inputs: BackboneInputs, b: int, before: Tensor
) -> tuple[tuple[Tensor, ...], ...]:
    """Log probabilities and gaps, `(T,)` for every phrase of a prompt; empty where they are not there.

    Args:
        model: The model.
        inputs: The batch.
        b: Index of the prompt.
        before: `(1, T, D)` of the positions before the tokens, or `(0, T, D)` where nothing was requested.
    """
    if not len(before) or not inputs.phrase_tokens[b]:
        return ()
    tokens, mask = torch.cat(inputs.phrase_tokens[b]), inputs.tensors["attention_mask"][b].cpu()
    ids = inputs.tensors["input_ids"][b, tokens.to(inputs.tensors["input_ids"].device)]
    found = token_log_probabilities(model, before[0], ids)
    if found is None:
        return ()
    has_predictor = (tokens.cpu() > mask.nonzero()[0]).to(found[0].device)
    lengths = [len(of_phrase) for of_phrase in inputs.phrase_tokens[b]]
    return tuple(tuple(torch.split(values.where(has_predictor, 0.0), lengths)) for values in found)


def _cache(body: nn.Module) -> dict[str, Any]:
    """An empty cache of all keys and values, by the name that the model gives it: newer releases changed it."""
    accepted = signature(type(body).forward).parameters
    return {name: DynamicCache() for name in CACHE_NAMES if name in accepted}


def recorded_attention(
    request: ResolvedRequest, recorder: RowRecorder, plan: RowPlan, sequence: int, device: torch.device
) -> Tensor:
    """Attention `(P or R, L, n, C)` of one sequence, on one device."""
    if not request.layers or not len(plan.rows):
        shape = len(request.rows(plan)), len(request.layers), len(request.heads), len(plan.columns)
        return torch.zeros(shape, device=device)
    maps = recorder.maps_of(sequence).to(device)
    distinct = list(dict.fromkeys(request.layers))
    if len(distinct) == len(request.layers):
        return maps
    return maps[:, [distinct.index(layer) for layer in request.layers]]


def plan_rows(
    phrase_tokens: Sequence[Tensor], grids: Sequence[ImageGrid], mask: Tensor, request: GridRequest
) -> RowPlan:
    """Plan the rows of all phrases against the columns of all grids.

    Args:
        phrase_tokens: Positions of every phrase's tokens.
        grids: All grids of the prompt.
        mask: `(S,)`, 0 on padding.
        request: Which of a phrase's rows are taken.

    Raises:
        RequestError: A phrase begins with the first token of the sequence, before which there is no row.
    """
    nothing, earlier = torch.empty(0, dtype=torch.long), request.align == "predictor"
    if request.reduce == "last":
        phrase_tokens = [tokens[-1:] for tokens in phrase_tokens]
    rows = torch.cat([nothing, *phrase_tokens]) - int(earlier)
    if earlier and not bool((rows >= mask.nonzero()[0]).all()):
        raise RequestError('align="predictor" has no row for the first token of a sequence. Ground a later phrase.')
    groups = [torch.full_like(tokens, phrase) for phrase, tokens in enumerate(phrase_tokens)]
    columns = [grid.tokens.flatten().cpu() for grid in grids]
    return RowPlan(rows=rows, groups=torch.cat([nothing, *groups]), columns=torch.cat([nothing, *columns]))
