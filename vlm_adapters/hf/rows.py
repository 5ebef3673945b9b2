"""The arithmetic of attention rows: one row of softmax weights, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

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
    """Compute scores `(B, n, R, Sk)` of `query (B, n, R, d)` against `key (B, n_kv, Sk, d)`, in float32, unmasked."""
    batch, heads, rows, width = query.shape
    # Heads of one key head are neighbours.
    grouped, keys = query.float().reshape(batch * key.shape[1], -1, width), key.float().flatten(0, 1).transpose(1, 2)
    # Scaled within the product: beside a fast kernel every further call counts. Nothing is added.
    scores = torch.baddbmm(grouped.new_empty(1, 1, 1), grouped, keys, beta=0, alpha=options.scaling)
    scores = scores.view(batch, heads, rows, -1)
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    return scores


@dataclass(frozen=True)
class HeadChoice:
    """Some heads of a layer, whose scores alone are computed.

    Heads that share a key head are computed together. Where these are not equally many for every key head, some are
    computed twice.

    Attributes:
        heads: `(n,)`: the chosen heads, in any order.
        key_heads: `(k,)`: the key heads that they attend with.
        computed: `(k * m,)`: m heads for each of these key heads.
        places: `(n,)`: where the chosen heads are among the computed.
    """

    heads: Tensor
    key_heads: Tensor
    computed: Tensor
    places: Tensor

    @classmethod
    def of(cls, heads: Sequence[int], per_key_head: int, device: torch.device) -> Self:
        """Choose heads in a layer in which so many share a key head."""
        groups: dict[int, list[int]] = {}
        for head in sorted(set(heads)):
            groups.setdefault(head // per_key_head, []).append(head)
        most = max(map(len, groups.values()), default=0)
        computed = [head for group in groups.values() for head in (group * most)[:most]]
        places = [computed.index(head) for head in heads]
        indices = [torch.tensor(of, dtype=torch.long, device="cpu") for of in (heads, [*groups], computed, places)]
        return cls(*(of.to(device) for of in indices))

    def scores(self, query: Tensor, key: Tensor, options: ScoreOptions) -> Tensor:
        """Scores `(B, n, R, Sk)` of the chosen heads; see `row_scores`."""
        if not len(self.heads):
            return query.new_zeros(len(query), 0, query.shape[2], key.shape[2], dtype=torch.float32)
        keys = key if len(self.key_heads) == key.shape[1] else key.index_select(1, self.key_heads)
        return row_scores(query.index_select(1, self.computed), keys, options).index_select(1, self.places)

    def select(self, of_heads: Tensor | None, axis: int) -> Tensor | None:
        """The chosen heads of what has an axis of all heads, or of one for all."""
        if of_heads is None or of_heads.shape[axis] == 1:
            return of_heads
        return of_heads.index_select(axis, self.heads)


def mask_of_rows(
    mask: Any, sequences: Tensor, rows: Tensor, earlier_keys: int, keys: int, options: ScoreOptions
) -> Tensor | None:
    """Look up which keys some rows see, as the kernel does.

    Args:
        mask: The mask of the kernel: None, `(B, 1, Sq, Sk)` bool or additive, `(B, Sk)` (flash), a block mask (flex).
        sequences: `(b,)` indices of the rows' sequences in the batch.
        rows: `(b, R)` positions of the rows among the queries of this call.
        earlier_keys: Keys in the cache from before the first of these queries.
        keys: Number of keys.
        options: Kind of the kernel, whether rows are causal, and their window.

    Returns:
        What `mask_scores` takes: True at the keys that are not seen, or what is added to the scores, in a form that can
        be broadcast to `(b, n, R, Sk)`. None if all keys are seen.

    Raises:
        CaptureError: The mask has a form that is not known for this kernel.
    """
    kind = options.kind
    if isinstance(mask, Tensor) and mask.ndim == 4 and kind != "flash":
        of_batch = sequences if mask.shape[0] > 1 else torch.zeros_like(sequences)
        of_rows = rows if mask.shape[2] > 1 else torch.zeros_like(rows)
        found = mask[of_batch[:, None], :, of_rows].transpose(1, 2)
        if kind == "sdpa" and found.dtype == torch.bool:
            return ~found
        return found.float()  # eager and flex add any mask, of whatever dtype
    if kind == "flex" and hasattr(mask, "mask_mod"):
        return ~_block_mask_rows(mask, sequences, rows, keys)
    if mask is None and kind in ("eager", "flex"):
        return None  # without a mask these two are not causal
    if mask is None or (kind == "flash" and isinstance(mask, Tensor) and mask.shape[1:] == (keys,)):
        padding = None if mask is None else mask[sequences if mask.shape[0] > 1 else sequences * 0].bool()
        return ~_visible(padding, rows + earlier_keys, keys, options)[:, None]
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
    raise CaptureError(
        f"The {kind} kernel got a mask of a form that capture does not know for it: {shape}, with {keys} keys. "
        'Load the model with attn_implementation="sdpa".'
    )


def mask_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a mask of `mask_of_rows` to scores `(B, n, R, Sk)`: keys that are not seen get minus infinity."""
    if mask is None:
        return scores
    return scores.masked_fill_(mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over keys, with one more learned logit per head if the model has attention sinks."""
    if sinks is None:
        return scores.softmax(-1)
    extra = sinks.float().reshape(-1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, extra], dim=-1).softmax(-1)[..., :-1]


def gather_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Gather `weights (B, n, R, Sk)` at key indices `(B, C)`."""
    if len(columns) == 1:
        return weights.index_select(-1, columns[0])
    return weights.gather(-1, columns[:, None, None].expand(*weights.shape[:3], -1))


def _visible(padding: Tensor | None, rows: Tensor, keys: int, options: ScoreOptions) -> Tensor:
    """The keys that every row sees without a mask, `(b, R, Sk)` bool; `rows` are positions among the keys.

    Flash kernels drop padding before they count, so causality and window count positions without it. Sdpa has no
    window: transformers gives it a mask for every window.
    """
    if padding is None:
        positions = torch.arange(keys, device=rows.device).expand(len(rows), keys)
    else:
        positions = padding.cumsum(-1)
    distance = positions.gather(1, rows)[:, :, None] - positions[:, None, :]
    seen = distance >= 0 if options.causal else torch.ones_like(distance, dtype=torch.bool)
    if options.kind == "flash" and options.sliding_window is not None:
        seen = seen & (distance.abs() < options.sliding_window)
    return seen if padding is None else seen & padding[:, None]


def _block_mask_rows(mask: Any, sequences: Tensor, rows: Tensor, keys: int) -> Tensor:
    """The keys that these rows see by a block mask's index function, bool in a form of `(b, n, R, Sk)`."""
    heads = torch.arange(mask.shape[1], device=rows.device)
    batch = sequences[:, None, None, None]
    seen: Tensor = mask.mask_mod(
        batch, heads[:, None, None], rows[:, None, :, None], torch.arange(keys, device=rows.device)
    )
    return seen.expand(torch.broadcast_shapes(seen.shape, (len(sequences), 1, rows.shape[1], keys)))
