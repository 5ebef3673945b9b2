"""Exact attention rows beside an untouched attention kernel.

A function registered as `vlm_adapters_<base>` in transformers' attention and mask interfaces calls the base kernel with
the very arguments it got, so the model's outputs are bit-identical. Beside it, while a recorder is active, it computes
in float32 the softmax rows of the queries asked for, `(n, R, S)` at a time, and keeps the columns asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vlm_adapters.errors import CaptureError
from vlm_adapters.rows import ScoreOptions, gather_columns, mask_of, row_scores, softmax, visible

PREFIX = "vlm_adapters_"
KERNELS = ("sdpa", "eager")

Kernel = Callable[..., tuple[Tensor, Tensor | None]]

# Keyword arguments of attention functions that change no score, or that `ScoreOptions` accounts for.
_NEUTRAL = frozenset(
    {
        "dropout",
        "position_ids",
        "cache_position",
        "use_cache",
        "return_dict",
        "logits_to_keep",
        "num_items_in_batch",
        "is_causal",
        "scaling",
        "sliding_window",
        "softcap",
        "s_aux",
    }
)


@dataclass(frozen=True)
class RowPlan:
    """Which attention rows of one sequence are wanted.

    Attributes:
        rows: `(R,)` LongTensor: positions of the queries, padding counted.
        groups: `(R,)` LongTensor: group of every row; rows of a group are reduced to one map. Groups are `0..G-1`.
        columns: `(C,)` LongTensor: positions of the keys to keep.
    """

    rows: Tensor
    groups: Tensor
    columns: Tensor


class RowRecorder:
    """Collects the rows that the plans ask for, layer by layer, over one or many forward passes of one sequence batch.

    Attributes:
        maps: Layer index -> for every sequence `(G, n, C)` float32 (`(R, n, C)` with `reduce="none"`).
    """

    def __init__(
        self,
        model: nn.Module,
        plans: Sequence[RowPlan],
        layers: Collection[int],
        reduce: Literal["mean", "max", "none"] = "mean",
    ) -> None:
        self.maps: dict[int, list[Tensor]] = {}
        self._modules = frozenset(map(id, model.modules()))
        # Indices stay on the CPU, where to look at one waits for no accelerator and needs no values of the model.
        self._plans = tuple(RowPlan(plan.rows.cpu(), plan.groups.cpu(), plan.columns.cpu()) for plan in plans)
        self._layers = frozenset(layers)
        self._reduce = reduce
        self._seen: dict[int, int] = {}
        self._recorded: dict[int, int] = {}

    def wants(self, module: nn.Module) -> bool:
        """Whether this attention module is one of the model's own, and its layer is asked for."""
        return id(module) in self._modules and getattr(module, "layer_idx", None) in self._layers

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, options: ScoreOptions) -> None:
        """Compute and keep the rows of this call's queries.

        Args:
            layer: Index of the layer.
            query: `(B, n, Sq, d)` after rotation.
            key: `(B, n_kv, Sk, d)` after rotation, cached keys first.
            mask: None (the kernel masks causally by itself), or `(B, 1, Sq, Sk)` bool or additive float.
            options: What else changes a score.
        """
        if query.shape[0] != len(self._plans):
            raise CaptureError(
                f"Rows were planned for {len(self._plans)} sequences, the model ran {query.shape[0]}. "
                "Do not expand the batch (beams, several returned sequences) while capturing."
            )
        start = self._seen.get(layer, 0)
        end = self._seen[layer] = start + query.shape[2]
        first_key = end - key.shape[2]
        if first_key < 0 or (first_key > 0 and options.sliding_window is None):
            raise CaptureError(
                f"Layer {layer} sees {key.shape[2]} keys after {end} tokens. "
                "Begin capturing with an empty dynamic cache, and do not roll it back."
            )
        for index, plan in enumerate(self._plans):
            here = ((plan.rows >= start) & (plan.rows < end)).nonzero().flatten()
            if not len(here):
                continue
            rows = plan.rows[here].to(query.device)
            # Advanced indexing copies only the rows asked for.
            scores = row_scores(query[index][:, rows - start], key[index], mask_of(mask, index, rows - start), options)
            positions = torch.arange(first_key, end, device=query.device)
            if mask is None:
                scores.masked_fill_(~visible(rows, positions, options), float("-inf"))
            weights = softmax(scores, options.sinks)
            self._keep(layer, index, here, gather_columns(weights, plan.columns - first_key))

    def _keep(self, layer: int, index: int, here: Tensor, weights: Tensor) -> None:
        """Reduce `weights (n, R', C)` of the plan's rows `here (R',)` into the maps."""
        groups, device = self._plans[index].groups, weights.device
        if layer not in self.maps:
            self.maps[layer] = [self._empty(plan, weights) for plan in self._plans]
        target = self.maps[layer][index]
        by_row = weights.transpose(0, 1)
        if self._reduce == "none":
            target[here.to(device)] = by_row
        elif self._reduce == "max":
            owners = groups[here].to(device)[:, None, None].expand_as(by_row)
            target.scatter_reduce_(0, owners, by_row, "amax")
        else:
            # A product, for index_add_ would add in an undefined order on a GPU.
            shares = torch.eye(len(target), device="cpu")[:, groups] / groups.bincount()[groups]
            target += (shares[:, here].to(device) @ weights).transpose(0, 1)
        self._recorded[layer] = self._recorded.get(layer, 0) + len(here)

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
                    "go through transformers' AttentionInterface, or its implementation was changed meanwhile."
                )


_active: ContextVar[RowRecorder | None] = ContextVar("vlm_adapters_recorder", default=None)


@contextmanager
def capture_rows(
    model: PreTrainedModel,
    plans: Sequence[RowPlan],
    layers: Collection[int],
    reduce: Literal["mean", "max", "none"] = "mean",
) -> Iterator[RowRecorder]:
    """Record attention rows of the language model in the forward passes run inside the block.

    Plans count positions from the first token that passes inside the block, so begin with an empty cache. Prefill and
    cached decoding steps together give the same rows as one pass over the whole sequence. Rows carry gradient as the
    pass itself does: none under `torch.no_grad()`.

    Args:
        model: A transformers model; its language model's attention goes through the attention interface.
        plans: One per sequence of the batch.
        layers: Indices of the layers to record.
        reduce: How the rows of a group become one map.

    Yields:
        The recorder; its `maps` are complete when the block ends.

    Raises:
        CaptureError: Rows cannot be computed exactly: unknown score bias, another kernel than sdpa or eager, a cache
            that is static or rolled back; or their gradient cannot, for layers are recomputed in the backward pass.
    """
    if torch.is_grad_enabled() and _recomputes(model):
        raise CaptureError(
            "Gradient checkpointing is on: layers run again in the backward pass, where no rows are recorded, so rows "
            "would have no right gradient. Turn it off, put the model in eval mode, or take rows without gradient."
        )
    install(model)
    recorder = RowRecorder(model, plans, layers, reduce)
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)
    recorder.check_complete()


def install(model: PreTrainedModel) -> None:
    """Route the language model's attention through the capturing function. Outputs stay bit-identical.

    The setting stays, so that threads that run the same model do not change it under each other.
    """
    config = model.config.get_text_config(decoder=True)
    base = config._attn_implementation  # noqa: SLF001 (transformers has no public reader)
    if base.startswith(PREFIX):
        return
    if base not in KERNELS:
        raise CaptureError(
            f"Rows cannot be taken beside the attention kernel {base!r} yet. "
            f"Load the model with {' or '.join(KERNELS)}."
        )
    name = PREFIX + base
    AttentionInterface.register(name, partial(_attend, base))
    # Without its mask function transformers would drop the mask silently.
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
    keys = [key for key in model.config.sub_configs if getattr(model.config, key) is config]
    model.set_attn_implementation({keys[0]: name} if keys else name)


def _attend(
    base: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    output = _kernel(base, module)(module, query, key, value, attention_mask, **kwargs)
    if (recorder := _active.get()) is not None and recorder.wants(module):
        options = _score_options(module, query, kwargs)
        with _without_autocast(query.device.type):
            recorder.record(cast("int", module.layer_idx), query, key, attention_mask, options)
    return output


def _recomputes(model: nn.Module) -> bool:
    """Whether layers with attention are checkpointed in this mode; transformers does so in training mode only."""
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


def _kernel(base: str, module: nn.Module) -> Kernel:
    if base == "eager":
        # The eager function is no registry entry: every modelling file has its own.
        for kind in type(module).__mro__:
            if kernel := vars(sys.modules[kind.__module__]).get("eager_attention_forward"):
                return cast("Kernel", kernel)
        raise CaptureError(f"{type(module).__name__} has no eager attention function. Load the model with sdpa.")
    return cast("Kernel", ALL_ATTENTION_FUNCTIONS[base])


def _score_options(module: nn.Module, query: Tensor, kwargs: dict[str, Any]) -> ScoreOptions:
    unknown = sorted(
        name
        for name, value in kwargs.items()
        if value is not None and name not in _NEUTRAL and not name.startswith("output_")
    )
    if unknown:
        raise CaptureError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention, which capture does not know. "
            "A map that leaves it out would be wrong, so none is given."
        )
    scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
    return ScoreOptions(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        sliding_window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
