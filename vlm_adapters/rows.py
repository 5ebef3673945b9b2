"""The arithmetic of attention rows: what one row of softmax weights is, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScoreOptions:
    """Everything beside q, k and mask that changes a row."""

    scaling: float
    causal: bool
    sliding_window: int | None
    softcap: float | None
    sinks: Tensor | None


def row_scores(query: Tensor, key: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Masked scores `(n, R, Sk)` of `query (n, R, d)` against `key (n_kv, Sk, d)`, in float32."""
    heads, rows, width = query.shape
    # Heads of one key head are neighbours; scaling the few queries is cheaper than scaling their scores.
    grouped = (query.float() * options.scaling).reshape(key.shape[0], -1, width)
    scores = (grouped @ key.float().transpose(1, 2)).reshape(heads, rows, -1)
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill_(~mask, float("-inf"))
    return scores + mask.float()


def mask_of(mask: Tensor | None, index: int, rows: Tensor) -> Tensor | None:
    """Mask of one sequence's rows, broadcastable to `(n, R, Sk)`."""
    if mask is None:
        return None
    return mask[index if mask.shape[0] > 1 else 0][:, rows]


def visible(rows: Tensor, keys: Tensor, options: ScoreOptions) -> Tensor:
    """`(R, Sk)` bool: what a kernel that gets no 4-D mask lets every row see."""
    distance = rows[:, None] - keys[None, :]
    seen = distance >= 0 if options.causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if options.sliding_window is None else seen & (distance.abs() < options.sliding_window)


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over keys, with one learned extra logit per head where the model has attention sinks."""
    if sinks is None:
        return scores.softmax(-1)
    extra = sinks.float().reshape(-1, 1, 1).expand(*scores.shape[:2], 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]


def gather_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Gather `weights (n, R, Sk)` at key indices; keys not (or no longer) in the cache get no attention."""
    there = (columns >= 0) & (columns < weights.shape[-1])
    found = weights[..., columns.clamp(0, weights.shape[-1] - 1).to(weights.device)]
    return found if bool(there.all()) else found * there.to(weights.device)
