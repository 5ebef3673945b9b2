"""Which attention rows a pass gives, and in what blocks they are computed.

The indices of a block are made on the CPU and moved to the device once per pass: every layer uses the same, so that no
layer waits for the device. Sequences with fewer rows than others, or fewer columns, are padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from vlm_adapters.hf.rows import (
    HeadChoice,
    ScoreOptions,
    gather_columns,
    mask_of_rows,
    mask_scores,
    row_scores,
    softmax,
)

Reduction = Literal["mean", "max", "none"]
"""How the rows of a group become one map."""


@dataclass(frozen=True)
class RowPlan:
    """The attention rows to record for one sequence.

    Attributes:
        rows: `(R,)` LongTensor: positions of the queries, padding counted.
        groups: `(R,)` LongTensor: group of every row; rows of a group are reduced to one map. Groups are `0..G-1`.
        columns: `(C,)` LongTensor: positions of the keys to keep.
    """

    rows: Tensor
    groups: Tensor
    columns: Tensor

    def maps(self, reduce: Reduction) -> int:
        """How many maps the rows become."""
        if reduce == "none":
            return len(self.rows)
        return int(self.groups.max()) + 1 if len(self.groups) else 0

    def to(self, device: torch.device) -> RowPlan:
        """The same plan with its indices on another device."""
        return RowPlan(self.rows.to(device), self.groups.to(device), self.columns.to(device))

    def moved(self, places: Tensor) -> RowPlan:
        """The plan in another sequence; `places (S,)` are the new positions of all of this one."""
        return RowPlan(places[self.rows], self.groups, places[self.columns])

    @classmethod
    def joined(cls, plans: Sequence[RowPlan]) -> RowPlan:
        """The rows of several plans with the same columns; their groups are numbered on."""
        groups, count = [], 0
        for plan in plans:
            groups.append(plan.groups + count)
            count += int(plan.groups.max()) + 1 if len(plan.groups) else 0
        return cls(torch.cat([plan.rows for plan in plans]), torch.cat(groups), plans[0].columns)


@dataclass(frozen=True)
class RowBlock:
    """Rows of one call of a kernel that are computed together; `b` sequences have some.

    Attributes:
        counts: By the index of every sequence that has some, the number of its rows, without padding.
        batch: Number of sequences of the call.
        earlier_keys: Keys in the cache from before the first query of the call.
        sequences: `(b,)`: indices of the sequences in the batch.
        rows: `(b, R)`: positions of the rows among the queries of the call. Padding repeats a row.
        columns: `(b, C)`: positions of the columns among the keys of the call; any where there is no such key.
        run: Where the columns begin and end if they are neighbours, in every sequence the same ones, else None.
        present: `(b, C)`: 1 where there is such a key, else 0; None if there is everywhere.
        slots: `(b, R)`: the map that each row is reduced into; padding goes to one beyond the last.
        shares: `(b, G, R)`: what a row adds to a map in the mean.
    """

    counts: Mapping[int, int]
    batch: int
    earlier_keys: int
    sequences: Tensor
    rows: Tensor
    columns: Tensor
    run: tuple[int, int] | None
    present: Tensor | None
    slots: Tensor
    shares: Tensor
    _masks: dict[object, tuple[Any, Tensor | None]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of rows of all sequences, without padding."""
        return sum(self.counts.values())

    def to(self, device: torch.device) -> Self:
        """The same block with its indices on another device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors, _masks={})

    def weights(
        self, query: Tensor, key: Tensor, mask: Any, options: ScoreOptions, heads: HeadChoice | None = None
    ) -> Tensor:
        """Softmax weights `(b, n, R, C)` of one layer; see `RowRecorder.record`."""
        if self.batch == 1:
            queries, keys = query.index_select(2, self.rows[0]), key
        else:
            queries = query[self.sequences[:, None], :, self.rows].transpose(1, 2)  # copies only the requested rows
            keys = key if len(self.sequences) == self.batch else key[self.sequences]
        of_rows = self._mask(mask, key.shape[2], options)
        if heads is None:
            scores, sinks = row_scores(queries, keys, options), options.sinks
        else:
            scores, sinks = heads.scores(queries, keys, options), heads.select(options.sinks, 0)
            of_rows = heads.select(of_rows, 1)
        found = softmax(mask_scores(scores, of_rows), sinks)
        # Most images are a run of tokens: a view then.
        found = gather_columns(found, self.columns) if self.run is None else found[..., slice(*self.run)]
        return found if self.present is None else found * self.present[:, None, None]

    def reduced(self, weights: Tensor, reduce: Reduction) -> Tensor:
        """Maps `(B, n, G, C)` of `weights (b, n, R, C)`."""
        if reduce == "mean":
            # A product, for index_add would add in an undefined order on a GPU.
            maps = self.shares[:, None] @ weights
        else:
            slots = self.slots[:, None, :, None].expand_as(weights)
            empty = weights.new_zeros(*weights.shape[:2], self.shares.shape[1] + 1, weights.shape[3])
            maps = empty.scatter_reduce(2, slots, weights, "amax")[:, :, :-1]
        if len(self.sequences) == self.batch:
            return maps
        return maps.new_zeros(self.batch, *maps.shape[1:]).index_copy(0, self.sequences, maps)

    def _mask(self, mask: Any, keys: int, options: ScoreOptions) -> Tensor | None:
        """The mask of the rows; layers of one kind get the same one, which is looked up once."""
        kind = id(mask), options.kind, options.causal, options.sliding_window
        if kind not in self._masks:
            found = mask_of_rows(mask, self.sequences, self.rows, self.earlier_keys, keys, options)
            self._masks[kind] = mask, found  # with the mask, so that no other can get its id
        return self._masks[kind][1]


def row_blocks(
    plans: Sequence[RowPlan], queries: range, first_key: int, most_rows: int, reduce: Reduction
) -> list[RowBlock]:
    """Divide the planned rows that are among the queries of a call into blocks.

    Args:
        plans: One plan per sequence of the batch, on the CPU.
        queries: Positions of the queries.
        first_key: Position of the first key of the call.
        most_rows: Rows of a sequence that a block may hold.
        reduce: How the rows of a group become one map.
    """
    selected = [((plan.rows >= queries.start) & (plan.rows < queries.stop)).nonzero().flatten() for plan in plans]
    blocks = []
    for first in range(0, max(map(len, selected), default=0), most_rows):
        parts = [indices[first : first + most_rows] for indices in selected]
        sequences = [index for index, part in enumerate(parts) if len(part)]
        blocks.append(_block(plans, sequences, [parts[index] for index in sequences], queries, first_key, reduce))
    return blocks


def _block(
    plans: Sequence[RowPlan],
    sequences: Sequence[int],
    parts: Sequence[Tensor],
    queries: range,
    first_key: int,
    reduce: Reduction,
) -> RowBlock:
    maps = max(plan.maps(reduce) for plan in plans)
    width = max(len(part) for part in parts)
    rows = torch.empty(len(parts), width, dtype=torch.long, device="cpu")
    slots = torch.full_like(rows, maps)
    shares = torch.zeros(len(parts), maps, width, device="cpu")
    columns = rows.new_full((len(parts), max(len(plan.columns) for plan in plans)), first_key)
    for index, (sequence, part) in enumerate(zip(sequences, parts, strict=True)):
        plan, count = plans[sequence], len(part)
        rows[index] = plan.rows[part[-1]] - queries.start
        rows[index, :count] = plan.rows[part] - queries.start
        columns[index, : len(plan.columns)] = plan.columns
        groups = plan.groups[part]
        slots[index, :count] = part if reduce == "none" else groups
        if reduce == "mean":
            shares[index, groups, torch.arange(count, device="cpu")] = 1 / plan.groups.bincount()[groups]
    present = (columns >= first_key) & (columns < queries.stop)
    keys, every = columns - first_key, bool(present.all())
    run = (int(keys[0, 0]), int(keys[0, 0]) + keys.shape[1]) if keys.shape[1] else (0, 0)
    return RowBlock(
        counts=dict(zip(sequences, map(len, parts), strict=True)),
        batch=len(plans),
        earlier_keys=queries.start - first_key,
        sequences=torch.tensor(sequences, device="cpu"),
        rows=rows,
        columns=keys * present,
        run=run if every and bool((keys == torch.arange(*run, device="cpu")).all()) else None,
        present=None if every else present.float(),
        slots=slots,
        shares=shares,
    )
