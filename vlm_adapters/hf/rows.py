"""The arithmetic of attention rows: what one row of softmax weights is, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.kernels import KernelKind


@dataclass(frozen=True)
class ScoreOptions:
    """Everything beside q, k and mask that changes a row, and the kind of kernel, which decides what a mask means."""

    kind: KernelKind
    scaling: float
    causal: bool
    sliding_window: int | None
    softcap: float | None
    sinks: Tensor | None


def row_scores(query: Tensor, key: Tensor, options: ScoreOptions) -> Tensor:
    """Scores `(n, R, Sk)` of `query (n, R, d)` against `key (n_kv, Sk, d)`, in float32, before any mask."""
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
    """Scores with the keys that a row does not see at minus infinity, as the kernel decides it.

    Args:
        scores: `(n, R, Sk)`.
        mask: What the kernel got: None, `(B, 1, Sq, Sk)` bool or additive, `(B, Sk)` for flash, a block mask for flex.
        index: Which sequence of the batch.
        rows: `(R,)` positions of the rows among the queries of this call.
        earlier_keys: Keys in the cache from before the first of these queries.
        options: The kernel's kind, whether rows are causal, and their window.

    Raises:
        CaptureError: The kernel is given a mask of a form that is not known for it.
    """
    kind, keys = options.kind, scores.shape[-1]
    if isinstance(mask, Tensor) and mask.ndim == 4 and kind != "flash":
        own = mask[index if mask.shape[0] > 1 else 0]
        own = own[:, rows] if own.shape[1] > 1 else own
        if kind == "sdpa" and own.dtype == torch.bool:
            return scores.masked_fill_(~own, float("-inf"))
        return scores + own.float()  # eager and flex add whatever they get
    if kind == "flex" and hasattr(mask, "mask_mod"):
        return scores.masked_fill_(~_block_mask_rows(mask, index, rows, scores), float("-inf"))
    if mask is None and kind in ("eager", "flex"):
        return scores  # without a mask these two are not causal
    if mask is None or (kind == "flash" and isinstance(mask, Tensor) and mask.shape[1:] == (keys,)):
        padding = None if mask is None else mask[index if mask.shape[0] > 1 else 0].bool()
        return scores.masked_fill_(~_visible(padding, rows + earlier_keys, keys, options), float("-inf"))
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise CaptureError(
        f"The {kind} kernel gets a mask of a form that capture does not know for it, {shape}, beside {keys} keys. "
        'Load the model with attn_implementation="sdpa".'
    )


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over keys, with one learned extra logit per head where the model has attention sinks."""
    if sinks is None:
        return scores.softmax(-1)
    extra = sinks.float().reshape(-1, 1, 1).expand(*scores.shape[:2], 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]


def gather_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Gather `weights (n, R, Sk)` at key indices; keys not (or no longer) in the cache get no attention."""
    there = (columns >= 0) & (columns < weights.shape[-1])
    found = weights[..., columns.clamp(0, weights.shape[-1] - 1)]
    return found * there


def _visible(padding: Tensor | None, rows: Tensor, keys: int, options: ScoreOptions) -> Tensor:
    """`(R, Sk)` bool: what a kernel by itself lets every row see; `rows` are positions among the keys.

    Flash kernels drop padding before they count, so causality and window go by positions without it. Sdpa knows no
    window: transformers gives it a mask wherever there is one.
    """
    positions = torch.arange(keys, device=rows.device) if padding is None else padding.cumsum(-1)
    distance = positions[rows][:, None] - positions[None, :]
    seen = distance >= 0 if options.causal else torch.ones_like(distance, dtype=torch.bool)
    if options.kind == "flash" and options.sliding_window is not None:
        seen = seen & (distance.abs() < options.sliding_window)
    return seen if padding is None else seen & padding


def _block_mask_rows(mask: Any, index: int, rows: Tensor, scores: Tensor) -> Tensor:
    """`(R, Sk)` or `(n, R, Sk)` bool from a block mask's index function, asked for these rows alone."""
    heads, _, keys = scores.shape
    batch = torch.tensor(index, device=scores.device)
    head = torch.arange(heads, device=scores.device)[:, None, None]
    seen: Tensor = mask.mask_mod(batch, head, rows[:, None], torch.arange(keys, device=scores.device))
    return seen.expand(torch.broadcast_shapes(seen.shape, (len(rows), keys)))
