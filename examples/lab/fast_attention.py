"""The attention of a Qwen2.5-VL over batches: same modules, same numbers, fewer and shorter products than stock.

The stock vision tower loops over images and windows. And captions of one image can share the work on it.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb


def group_windows(edges: Tensor) -> list[Tensor]:
    """Token indices of all windows, windows of one length together, each `(windows, length)`.

    Args:
        edges: Where windows begin and end in the sequence, ascending.
    """
    groups = defaultdict(list)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        groups[end - start].append(torch.arange(start, end))
    return [torch.stack(group) for group in groups.values()]


def attend_vision(attention: nn.Module, hidden: Tensor, groups: list[Tensor], tables: tuple[Tensor, Tensor]) -> Tensor:
    """Attention within windows.

    Args:
        attention: A vision block's.
        hidden: `(B, N, D)`.
        groups: As from `group_windows`; together they hold every token once.
        tables: Cosine and sine of the positions, each `(N, d)`.
    """
    B, N, D = hidden.shape
    query, key, value = attention.qkv(hidden).view(B, N, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = (x.to(value.dtype) for x in apply_rotary_pos_emb(query, key, *tables, unsqueeze_dim=0))
    mixed = torch.empty_like(value)
    for group in groups:
        parts = [x[:, :, group.flatten()].reshape(-1, group.shape[1], x.shape[-1]) for x in (query, key, value)]
        mix = _mix_short if len(group) > 1 else _mix_long
        out = mix(*parts, attention.scaling).view(B, attention.num_heads, -1, value.shape[-1])
        mixed = mixed.index_copy(2, group.flatten(), out)
    return attention.proj(mixed.transpose(1, 2).reshape(B, N, D))


def attend_text(
    attention: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], layout: tuple[int, int], start: int
) -> Tensor:
    """Causal attention over a question followed by answers, none of which sees another.

    Args:
        attention: A text layer's.
        hidden: `(B, Q + K * S, D)`.
        tables: Cosine and sine of the positions, each `(1, Q + K * S, d)`.
        layout: Lengths `Q` of the question and number `K` of answers.
        start: First row to compute: 0, or `Q` for the answers alone.
    """
    (B, N, _), (Q, K), d = hidden.shape, layout, attention.head_dim
    query, key, value = (
        projection(hidden).view(B, N, -1, d).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = (x.to(value.dtype) for x in apply_rotary_pos_emb(query, key, *tables))
    # Keys and values are shared by groups of heads: fold each group's queries into rows.
    shared = key.shape[1]
    query, key, value = (x.reshape(B * shared, -1, N, d) for x in (query * attention.scaling, key, value))
    with torch.autocast(query.device.type, enabled=False):
        answers = _answer_rows(query[:, :, Q:], key[:, 0], value[:, 0], Q, K)
        parts = [answers] if start else [_question_rows(query[:, :, :Q], key[:, 0, :Q], value[:, 0, :Q]), answers]
    mixed = torch.cat(parts, 2).view(B, -1, N - start, d)
    return attention.o_proj(mixed.transpose(1, 2).flatten(2))


def attend_question(
    attention: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Causal attention over questions `(B, Q, D)`; also their keys and values, each `(B, groups, Q, d)`."""
    query, key, value = _folded(attention, hidden, tables)
    causal = _future(hidden.shape[1], query).repeat(query.shape[2] // hidden.shape[1], 1)
    return _mixed(attention, query, key, value, causal), (key, value)


def attend_answers(
    attention: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], question: tuple[Tensor, Tensor]
) -> Tensor:
    """Causal attention over answers `(g, S, D)`, which see their questions' keys and values `(g, groups, Q, d)`."""
    query, key, value = _folded(attention, hidden, tables)
    S = hidden.shape[1]
    causal = F.pad(_future(S, query), (question[0].shape[2], 0)).repeat(query.shape[2] // S, 1)
    key, value = (torch.cat(parts, 2) for parts in zip(question, (key, value), strict=True))
    return _mixed(attention, query, key, value, causal)


def _folded(attention: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(B, groups, rows, d)`; queries of heads that share keys are rows in turn."""
    B, N, _ = hidden.shape
    query, key, value = (
        projection(hidden).view(B, N, -1, attention.head_dim).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = (x.to(value.dtype) for x in apply_rotary_pos_emb(query, key, *tables))
    return (query * attention.scaling).reshape(B, key.shape[1], -1, attention.head_dim), key, value


def _mixed(attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        mixed = torch.matmul((torch.matmul(query, key.transpose(2, 3)) + mask).softmax(-1), value)
    B, groups, _, d = mixed.shape
    rows = mask.shape[0] * d * groups // attention.o_proj.in_features
    return attention.o_proj(mixed.view(B, -1, rows, d).transpose(1, 2).flatten(2))


def _question_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    B, n, Q, d = query.shape
    scores = torch.bmm(query.reshape(B, n * Q, d), key.transpose(1, 2))
    return torch.bmm((scores.view(B, n, Q, Q) + _future(Q, scores)).softmax(-1).view(B, n * Q, Q), value).view(
        B, n, Q, d
    )


def _answer_rows(query: Tensor, key: Tensor, value: Tensor, Q: int, K: int) -> Tensor:
    B, n, rows, d = query.shape
    S = rows // K
    to_question = torch.bmm(query.reshape(B, n * rows, d), key[:, :Q].transpose(1, 2)).view(B, n, K, S, Q)
    own_query = query.reshape(B, n, K, S, d).transpose(1, 2).reshape(B * K, n * S, d)
    own_key, own_value = (x[:, Q:].reshape(B * K, S, d) for x in (key, value))
    to_own = torch.bmm(own_query, own_key.transpose(1, 2)).view(B, K, n, S, S).transpose(1, 2) + _future(S, query)
    weights = torch.cat([to_question, to_own], -1).softmax(-1)
    seen = torch.bmm(weights[..., :Q].reshape(B, n * rows, Q), value[:, :Q]).view(B, n, K, S, d)
    own = weights[..., Q:].transpose(1, 2).reshape(B * K, n * S, S)
    said = torch.bmm(own, own_value).view(B, K, n, S, d).transpose(1, 2)
    return (seen + said).view(B, n, rows, d)


def _future(length: int, like: Tensor) -> Tensor:
    return torch.full((length, length), -math.inf, dtype=like.dtype).triu(1)


def _mix_long(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=scale)[:, 0]


def _mix_short(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Plain products: on short sequences they beat the fused kernel of the processor."""
    with torch.autocast(query.device.type, enabled=False):
        return torch.bmm(torch.bmm(query * scale, key.transpose(1, 2)).softmax(-1), value)
