"""The arithmetic of attention rows: one row of softmax weights, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.kernels import KernelKind


@dataclass(frozen=True)
class ScoreOptions:
    """Everything beside query, key and mask that changes a row.

    Attributes:
        kind: Kind of the kernel, which decides what a mask means.
        scaling: Factor of the scores.
        causal: Whether a row sees earlier keys only.
        sliding_window: Number of keys that a row sees; None for all.
        softcap: Bound of the scores, by tanh; None for none.
        sinks: One learned logit per head that takes part in the softmax; None for none.
    """

    kind: KernelKind
    scaling: float
    causal: bool
    sliding_window: int | None
    softcap: float | None
    sinks: Tensor | None


def row_scores(query: Tensor, key: Tensor, options: ScoreOptions) -> Tensor:
    """Compute scores `(n, R, Sk)` of `query (n, R, d)` against `key (n_kv, Sk, d)`, in float32, before any mask."""
    heads, rows, width = query.shape
    # Heads of one key head are neighbours; scaling the few queries is cheaper than scaling their scores.
    grouped = (query.float() * options.scaling).reshape(key.shape[0], -1, width)
    scores = (grouped @ key.float().transpose(1, 2)).reshape(heads, rows, -1)
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    return scores


def mask_scores(
    scores: Tensor, mask: Any, index: int, rows: Tensor, earlier_keys: int, options: ScoreOptions
) -> Tensor:
    """Set the scores of keys that a row does not see to minus infinity, as the kernel does.

    Args:
        scores: `(n, R, Sk)`.
        mask: The mask of the kernel: None, `(B, 1, Sq, Sk)` bool or additive, `(B, Sk)` (flash), a block mask (flex).
        index: Index of the sequence in the batch.
        rows: `(R,)` positions of the rows among the queries of this call.
        earlier_keys: Keys in the cache from before the first of these queries.
        options: Kind of the kernel, whether rows are causal, and their window.

    Raises:
        CaptureError: The mask has a form that is not known for this kernel.
    """
    kind, keys = options.kind, scores.shape[-1]
    if isinstance(mask, Tensor) and mask.ndim == 4 and kind != "flash":
        of_rows = mask[index if mask.shape[0] > 1 else 0]
        of_rows = of_rows[:, rows] if of_rows.shape[1] > 1 else of_rows
        if kind == "sdpa" and of_rows.dtype == torch.bool:
            return scores.masked_fill_(~of_rows, float("-inf"))
        return scores + of_rows.float()  # eager and flex add any mask, of whatever dtype
    if kind == "flex" and hasattr(mask, "mask_mod"):
        return scores.masked_fill_(~_block_mask_rows(mask, index, rows, scores), float("-inf"))
    if mask is None and kind in ("eager", "flex"):
        return scores  # without a mask these two are not causal
    if mask is None or (kind == "flash" and isinstance(mask, Tensor) and mask.shape[1:] == (keys,)):
        padding = None if mask is None else mask[index if mask.shape[0] > 1 else 0].bool()
        return scores.masked_fill_(~_visible(padding, rows + earlier_keys, keys, options), float("-inf"))
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise CaptureError(
        f"The {kind} kernel got a mask of a form that capture does not know for it: {shape}, with {keys} keys. "
        'Load the model with attn_implementation="sdpa".'
    )


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over keys, with one more learned logit per head if the model has attention sinks."""
    if sinks is None:
        return scores.softmax(-1)
    extra = sinks.float().reshape(-1, 1, 1).expand(*scores.shape[:2], 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]


def gather_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Gather `weights (n, R, Sk)` at key indices; keys that are not in the cache get no attention."""
    in_cache = (columns >= 0) & (columns < weights.shape[-1])
    found = weights[..., columns.clamp(0, weights.shape[-1] - 1)]
    return found * in_cache


def _visible(padding: Tensor | None, rows: Tensor, keys: int, options: ScoreOptions) -> Tensor:
    """The keys that every row sees without a mask, `(R, Sk)` bool; `rows` are positions among the keys.

    Flash kernels drop padding before they count, so causality and window count positions without it. Sdpa has no
    window: transformers gives it a mask for every window.
    """
    positions = torch.arange(keys, device=rows.device) if padding is None else padding.cumsum(-1)
    distance = positions[rows][:, None] - positions[None, :]
    seen = distance >= 0 if options.causal else torch.ones_like(distance, dtype=torch.bool)
    if options.kind == "flash" and options.sliding_window is not None:
        seen = seen & (distance.abs() < options.sliding_window)
    return seen if padding is None else seen & padding


def _block_mask_rows(mask: Any, index: int, rows: Tensor, scores: Tensor) -> Tensor:
    """The keys that these rows see by a block mask's index function, `(R, Sk)` or `(n, R, Sk)` bool."""
    heads, _, keys = scores.shape
    batch = torch.tensor(index, device=scores.device)
    head = torch.arange(heads, device=scores.device)[:, None, None]
    seen: Tensor = mask.mask_mod(batch, head, rows[:, None], torch.arange(keys, device=scores.device))
    return seen.expand(torch.broadcast_shapes(seen.shape, (len(rows), keys)))
