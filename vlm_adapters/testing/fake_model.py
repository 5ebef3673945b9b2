"""The model behind the fake adapter: three causal layers with random weights, without transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, ATTENTION_LAYERS, HEADS, WIDTH = 3, (0, 2), 3, 24
CHARACTERS = 128
IMAGE, PADDING = -1, -2
"""Ids of tokens that are not characters, so that no text can spell them."""

_FEATURES = 12


@dataclass(frozen=True)
class FakePass:
    """The output of the fake model.

    Attributes:
        states: Layer index -> hidden states `(B, S, D)`.
        rows: Layer index -> the requested attention rows `(n, R, S)` of every sequence.
        logits: `(B, S, CHARACTERS)` of the character that follows; those beyond count as the last one.
    """

    states: Mapping[int, Tensor]
    rows: Mapping[int, Sequence[Tensor]]
    logits: Tensor


class FakeModel(nn.Module):
    """Three causal layers with random weights over character codes and colours of cells."""

    def __init__(self, attention: str, seed: int = 0) -> None:
        super().__init__()
        self.eager = attention == "eager"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Linear(_FEATURES, WIDTH)
            self.place = nn.Linear(_FEATURES, WIDTH)
            self.see = nn.Linear(_FEATURES, WIDTH)
            self.mix = nn.ModuleDict({str(layer): nn.Linear(WIDTH, 3 * WIDTH) for layer in ATTENTION_LAYERS})
            self.think = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
            self.say = nn.Linear(WIDTH, CHARACTERS)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        cells: Tensor,
        row_positions: Sequence[Tensor] | None = None,
    ) -> FakePass:
        """Run the model.

        Args:
            input_ids: `(B, S)` code points, `IMAGE` or `PADDING`.
            attention_mask: `(B, S)`, 0 on padding.
            cells: `(number of image tokens, 12)` colours in [0, 1].
            row_positions: Positions `(R,)` of the rows of attention to return, for every sequence.
        """
        dtype = self.embed.weight.dtype
        images = input_ids == IMAGE
        states = self.embed(_waves(input_ids).to(dtype))
        states = states.masked_scatter(images[..., None], 3 * self.see((cells - 0.5).to(dtype)))
        states = states + self.place(_waves(attention_mask.cumsum(1)).to(dtype))
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        # Padding sees itself; without any key its softmax would be undefined.
        mask = (causal & attention_mask.bool()[:, None, None]) | torch.eye(length, dtype=torch.bool)
        outputs: dict[int, Tensor] = {}
        rows: dict[int, list[Tensor]] = {}
        for layer, think in enumerate(self.think):
            if layer in ATTENTION_LAYERS:
                query, key, value = self._heads(layer, states)
                states = states + self._kernel(query, key, value, mask).transpose(1, 2).flatten(-2)
                if row_positions is not None:
                    rows[layer] = [
                        _weights(query[b][:, positions], key[b], mask[b][:, positions])
                        for b, positions in enumerate(row_positions)
                    ]
            states = states + torch.tanh(think(states))
            outputs[layer] = functional.layer_norm(states, (WIDTH,)) if layer == LAYERS - 1 else states
        return FakePass(outputs, rows, self.say(outputs[LAYERS - 1]))

    def _heads(self, layer: int, states: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value `(B, n, S, d)`."""
        mixed = self.mix[str(layer)](functional.layer_norm(states, (WIDTH,))) * 2
        return tuple(part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=-1))

    def _kernel(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        if self.eager:
            return _weights(query, key, mask).to(value.dtype) @ value
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def _waves(numbers: Tensor) -> Tensor:
    """Features `(..., 12)` in [-1, 1]: sines that differ between numbers."""
    rates = torch.logspace(0.3, -2.5, _FEATURES)
    return torch.sin(numbers[..., None].float() * rates + torch.arange(_FEATURES))


def _weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Attention `(..., R, S)` in float32 of `query (..., R, d)` over `key (..., S, d)`."""
    scores = query.float() @ key.float().transpose(-1, -2) * query.shape[-1] ** -0.5
    shares: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return shares
