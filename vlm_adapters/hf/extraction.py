"""From recorded rows and hidden states to `Grids`, for every adapter over a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.errors import RequestError
from vlm_adapters.hf.capture import RowPlan, RowRecorder


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with its layers and heads resolved to true indices.

    Attributes:
        layers: Layers whose attention is extracted.
        heads: Heads extracted from each of these layers.
        hidden_layers: Layers whose hidden states are extracted as grids.
        phrase_hidden_layers: Layers whose hidden states are extracted at the phrases.
        keep_rows: Whether every row is a map, instead of one map per phrase.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    hidden_layers: tuple[int, ...]
    phrase_hidden_layers: tuple[int, ...]
    keep_rows: bool

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
            keep_rows=request.reduce == "none",
        )

    @property
    def last_layer(self) -> int:
        """The last layer that has to run."""
        return max((*self.layers, *self.hidden_layers, *self.phrase_hidden_layers), default=0)

    def attention(self, recorder: RowRecorder, plan: RowPlan, sequence: int, device: torch.device) -> Tensor:
        """Attention `(P or R, L, n, C)` of one sequence, on one device."""
        if not self.layers or not len(plan.rows):
            count = len(self.rows(plan))
            return torch.zeros(count, len(self.layers), len(self.heads), len(plan.columns), device=device)
        maps = [recorder.maps[layer][sequence][:, list(self.heads)].to(device) for layer in self.layers]
        return torch.stack(maps, dim=1)

    def rows(self, plan: RowPlan) -> tuple[int, ...]:
        """The phrase of every entry of the first axis."""
        phrases = plan.groups.tolist()
        return tuple(phrases if self.keep_rows else sorted(set(phrases)))

    def grids(
        self,
        image_grids: Sequence[ImageGrid],
        plan: RowPlan,
        attention: Tensor,
        hidden: Tensor,
        phrase_hidden: Sequence[Tensor],
    ) -> list[Grids]:
        """Build the `Grids` of one prompt.

        Args:
            image_grids: The grids, in the order of the plan's columns.
            plan: The rows and columns of the prompt.
            attention: `(P or R, L, n, C)`.
            hidden: `(K, C, D)`.
            phrase_hidden: Per phrase `(K, T, D)`.
        """
        sizes = [grid.tokens.numel() for grid in image_grids]
        return [
            Grids(
                grid=grid,
                attention=maps.unflatten(-1, grid.shape),
                layers=self.layers,
                heads=self.heads,
                row_phrases=self.rows(plan),
                hidden=states.transpose(1, 2).unflatten(-1, grid.shape),
                hidden_layers=self.hidden_layers,
                phrase_hidden=tuple(phrase_hidden),
                phrase_hidden_layers=self.phrase_hidden_layers,
            )
            for grid, maps, states in zip(image_grids, attention.split(sizes, -1), hidden.split(sizes, 1), strict=True)
        ]


def plan_rows(phrase_tokens: Sequence[Tensor], grids: Sequence[ImageGrid], mask: Tensor, *, earlier: bool) -> RowPlan:
    """Plan the rows of all phrases against the columns of all grids.

    Args:
        phrase_tokens: Positions of every phrase's tokens.
        grids: All grids of the prompt.
        mask: `(S,)`, 0 on padding.
        earlier: Whether to take the row before each token.

    Raises:
        RequestError: A phrase begins with the first token of the sequence, before which there is no row.
    """
    nothing = torch.empty(0, dtype=torch.long)
    rows = torch.cat([nothing, *phrase_tokens]) - int(earlier)
    if earlier and not bool((rows >= mask.nonzero()[0]).all()):
        raise RequestError('align="predictor" has no row for the first token of a sequence. Ground a later phrase.')
    groups = [torch.full_like(tokens, phrase) for phrase, tokens in enumerate(phrase_tokens)]
    columns = [grid.tokens.flatten().cpu() for grid in grids]
    return RowPlan(rows=rows, groups=torch.cat([nothing, *groups]), columns=torch.cat([nothing, *columns]))
