"""Exact attention rows beside an untouched attention kernel.

While a recorder is active, a pass-through stands before the language model's kernel (`vlm_adapters.hf.kernels`): the
kernel runs as always, and beside it the recorder computes in float32 the softmax rows of the requested queries,
`(n, R, S)` at a time, and keeps the requested columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.kernels import KernelKind, listen
from vlm_adapters.hf.language_model import language_model_of
from vlm_adapters.hf.rows import ScoreOptions, gather_columns, mask_scores, row_scores, softmax

# Keyword arguments of attention functions that change no score, or that `ScoreOptions` accounts for. The choice of a
# sparse family (`block_indices`) is in the mask of the kernels that do not read it.
_KNOWN = frozenset(
    {
        "block_indices",
        "cache_position",
        "deterministic",
        "dropout",
        "is_causal",
        "kernel_options",
        "logits_to_keep",
        "num_items_in_batch",
        "position_ids",
        "return_dict",
        "s_aux",
        "scaling",
        "sliding_window",
        "softcap",
        "use_cache",
    }
)
MAX_SCORES = 2**25
"""Scores that are held at once, heads x rows x keys (128 MiB): rows of a phrase of thousands of tokens go in blocks."""

_PACKED = frozenset({"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "block_table"})


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


class RowRecorder:
    """Collects the rows that the plans ask for, layer by layer, over one or many forward passes of one sequence batch.

    Attributes:
        maps: Layer index -> for every sequence `(G, n, C)` float32 (`(R, n, C)` with `reduce="none"`).
    """

    def __init__(
        self, plans: Sequence[RowPlan], layers: Collection[int], reduce: Literal["mean", "max", "none"] = "mean"
    ) -> None:
        self.maps: dict[int, list[Tensor]] = {}
        # Indices are inspected on the CPU, so that nothing waits for an accelerator.
        self._plans = tuple(plan.to(torch.device("cpu")) for plan in plans)
        self._plans_by_device: dict[torch.device, tuple[RowPlan, ...]] = {}
        self._layers = frozenset(layers)
        self._reduce = reduce
        self._tokens_seen: dict[int, int] = {}
        self._recorded: dict[int, int] = {}

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Any, options: ScoreOptions) -> None:
        """Compute and keep the rows of this call's queries.

        Args:
            layer: Index of the layer.
            query: `(B, n, Sq, d)` after rotation.
            key: `(B, n_kv, Sk, d)` after rotation, cached keys first.
            mask: The mask that the kernel got; see `mask_scores`.
            options: Everything else that changes a score.
        """
        if query.shape[0] != len(self._plans):
            raise CaptureError(
                f"Rows were planned for {len(self._plans)} sequences, the model ran {query.shape[0]}. "
                "Do not expand the batch (beam search, several returned sequences) while capturing."
            )
        start = self._tokens_seen.get(layer, 0)
        end = self._tokens_seen[layer] = start + query.shape[2]
        first_key = end - key.shape[2]
        if first_key < 0 or (first_key > 0 and options.sliding_window is None):
            raise CaptureError(
                f"Layer {layer} sees {key.shape[2]} keys after {end} tokens. "
                "Begin capturing with an empty dynamic cache, and do not roll it back."
            )
        if query.device not in self._plans_by_device:
            self._plans_by_device[query.device] = tuple(plan.to(query.device) for plan in self._plans)
        for index, (plan, on_device) in enumerate(zip(self._plans, self._plans_by_device[query.device], strict=True)):
            selected = ((plan.rows >= start) & (plan.rows < end)).nonzero().flatten()
            if not len(selected):
                continue
            for block in selected.split(max(MAX_SCORES // (query.shape[1] * key.shape[2]), 1)):
                indices = block.to(query.device) if len(block) < len(plan.rows) else slice(None)
                rows = on_device.rows[indices] - start
                # Advanced indexing copies only the requested rows.
                scores = row_scores(query[index][:, rows], key[index], options)
                scores = mask_scores(scores, mask, index, rows, start - first_key, options)
                weights = gather_columns(softmax(scores, options.sinks), on_device.columns - first_key)
                self._store(layer, index, block, weights)

    def _store(self, layer: int, index: int, selected: Tensor, weights: Tensor) -> None:
        """Reduce `weights (n, R', C)` of the plan's rows `selected (R',)` into the maps."""
        groups, device = self._plans[index].groups, weights.device
        if layer not in self.maps:
            self.maps[layer] = [self._empty(plan, weights) for plan in self._plans]
        target = self.maps[layer][index]
        by_row = weights.transpose(0, 1)
        if self._reduce == "none":
            target[selected.to(device)] = by_row
        elif self._reduce == "max":
            rows_of_groups = groups[selected].to(device)[:, None, None].expand_as(by_row)
            target.scatter_reduce_(0, rows_of_groups, by_row, "amax")
        else:
            # A product, for index_add_ would add in an undefined order on a GPU.
            shares = torch.eye(len(target), device="cpu")[:, groups] / groups.bincount()[groups]
            target += (shares[:, selected].to(device) @ weights).transpose(0, 1)
        self._recorded[layer] = self._recorded.get(layer, 0) + len(selected)

    def _empty(self, plan: RowPlan, weights: Tensor) -> Tensor:
        count = len(plan.rows) if self._reduce == "none" else int(plan.groups.max()) + 1 if len(plan.groups) else 0
        return weights.new_zeros(count, weights.shape[0], len(plan.columns))

    def check_complete(self) -> None:
        """Make sure that every row of every layer was recorded.

        Raises:
            CaptureError: Some layer recorded fewer rows than planned.
        """
        planned = sum(len(plan.rows) for plan in self._plans)
        for layer in sorted(self._layers):
            if planned and self._recorded.get(layer, 0) != planned:
                raise CaptureError(
                    f"Layer {layer} recorded {self._recorded.get(layer, 0)} of {planned} rows. Its attention does not "
                    "go through transformers' AttentionInterface, or its implementation changed during the pass."
                )


_active: ContextVar[tuple[RowRecorder, ...]] = ContextVar("vlm_adapters_recorders", default=())


@contextmanager
def capture_rows(
    model: PreTrainedModel,
    plans: Sequence[RowPlan],
    layers: Collection[int],
    reduce: Literal["mean", "max", "none"] = "mean",
) -> Iterator[RowRecorder]:
    """Record attention rows of the language model in the forward passes that run inside the block.

    Plans count positions from the first token that passes inside the block, so begin with an empty cache. Prefill and
    cached decoding steps together give the same rows as one pass over the whole sequence. Rows carry gradient as the
    pass itself does: none under `torch.no_grad()`. The model keeps the kernel it was loaded with: sdpa, eager, a flash
    kernel or flex.

    Args:
        model: A transformers model; its language model's attention goes through the attention interface.
        plans: One plan per sequence of the batch.
        layers: Indices of the layers to record.
        reduce: How the rows of a group become one map.

    Yields:
        The recorder; its `maps` are complete when the block ends.

    Raises:
        CaptureError: Rows cannot be computed exactly: unknown score bias, unknown kernel, packed sequences, a cache
            that is static or rolled back. Or their gradient cannot, because layers are recomputed in the backward pass.
    """
    if torch.is_grad_enabled() and _recomputes(model):
        raise CaptureError(
            "Gradient checkpointing is on: layers run again in the backward pass, where no rows are recorded, so rows "
            "would have a wrong gradient. Turn it off, put the model in eval mode, or request rows without gradient."
        )
    recorder = RowRecorder(plans, layers, reduce)
    recorded = {
        id(module): (layer, module) for layer, module in language_model_of(model).attention_modules() if layer in layers
    }

    def listener(
        kind: KernelKind, module: nn.Module, query: Tensor, key: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> None:
        if id(module) in recorded and recorder in _active.get():  # a pass of another model or of another thread
            options = _score_options(kind, module, query, mask, kwargs)
            with _without_autocast(query.device.type):
                recorder.record(recorded[id(module)][0], query, key, mask, options)

    token = _active.set((*_active.get(), recorder))
    try:
        with listen([module for _, module in recorded.values()], torch.compiler.disable(listener)):
            yield recorder
    finally:
        _active.reset(token)
    recorder.check_complete()


def _recomputes(model: nn.Module) -> bool:
    """Whether layers with attention are recomputed; transformers does so in training mode only."""
    return any(
        getattr(layer, "gradient_checkpointing", False)
        and layer.training
        and any(hasattr(part, "layer_idx") for part in layer.modules())
        for layer in model.modules()
    )


def _without_autocast(device: str) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()  # the meta device has none


def _score_options(
    kind: KernelKind, module: nn.Module, query: Tensor, mask: Any, kwargs: dict[str, Any]
) -> ScoreOptions:
    given = {name for name, value in kwargs.items() if value is not None}
    if given & _PACKED or (kind == "flash" and _is_packed(kwargs.get("position_ids"), mask, len(query))):
        raise CaptureError(
            "Several sequences are packed into one, and rows cannot be taken from packed sequences. "
            "Give every sequence a line of the batch, padded."
        )
    known = _KNOWN - ({"block_indices"} if kind in ("flash", "flex") else set())
    if unknown := sorted(name for name in given - known if not name.startswith("output_")):
        raise CaptureError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention, which capture does not know. "
            "A map computed without it would be wrong. Load the model in a configuration that does not use it."
        )
    scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
    return ScoreOptions(
        kind=kind,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        sliding_window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )


def _is_packed(position_ids: Tensor | None, mask: Any, batch: int) -> bool:
    """Whether transformers treats one sequence without padding as several, because positions start again."""
    if position_ids is None or mask is not None or batch != 1 or position_ids.shape[-1] == 1:
        return False
    return bool((position_ids.diff(dim=-1) != 1).any())
