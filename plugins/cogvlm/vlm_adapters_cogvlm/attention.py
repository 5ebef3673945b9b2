"""Attention through transformers' attention interface, as its own models do it, so that rows can be captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def eager_attention_forward(  # noqa: PLR0913 - the signature of every kernel
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend with plain operations, the softmax in float32; also returns the weights `(B, n, S, S)`."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class FusedAttention(nn.Module):
    """Attention whose queries, keys and values come from one projection; the config names the kernel.

    Args:
        config: Config whose `_attn_implementation` is the kernel.
        heads: Number of heads.
        is_causal: Whether a token sees no later one.
    """

    num_key_value_groups = 1

    def __init__(self, config: PreTrainedConfig, heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        self.is_causal = is_causal
        self.scaling = (config.hidden_size // heads) ** -0.5

    def heads_of(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Divide `(B, S, 3 * D)` into queries, keys and values `(B, n, S, D / n)`."""
        query, key, value = fused.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> tuple[Tensor, Any]:
        """Run the kernel: `(B, S, D)`, and the weights if the kernel gives them.

        Positions are never among the options: a kernel would take those that repeat for packed sequences.
        """
        name = self.config._attn_implementation  # noqa: SLF001 - transformers has no public reader
        kernel = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        attended, weights = kernel(self, query, key, value, mask, scaling=self.scaling, dropout=0.0, **options)
        return attended.flatten(2), weights
