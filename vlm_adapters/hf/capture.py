"""Exact attention rows beside an untouched attention kernel.

While a recorder is active, a pass-through stands before the language model's kernel (`vlm_adapters.hf.kernels`): the
kernel runs as always, and beside it the recorder computes in float32 the softmax rows of the requested queries,
`(n, R, S)` at a time, for the requested heads, and keeps the requested columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.kernels import KernelKind, listen
from vlm_adapters.hf.language_model import language_model_of
from vlm_adapters.hf.recorded_maps import RecordedMaps
from vlm_adapters.hf.row_blocks import Reduction, RowBlock, RowPlan, row_blocks
from vlm_adapters.hf.rows import HeadChoice, ScoreOptions

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


class RowRecorder:
    """Collects the rows that the plans ask for, layer by layer, over one or many forward passes of one sequence batch.

    Its arguments are those of `capture_rows`.
    """

    def __init__(
        self,
        plans: Sequence[RowPlan],
        layers: Collection[int],
        reduce: Reduction = "mean",
        heads: Sequence[int] | None = None,
    ) -> None:
        # Indices are inspected on the CPU, so that nothing waits for an accelerator.
        self._plans = tuple(plan.to(torch.device("cpu")) for plan in plans)
        sizes = [(plan.maps(reduce), len(plan.columns)) for plan in self._plans]
        self._layers = tuple(dict.fromkeys(layers))
        self._maps = RecordedMaps(sizes, self._layers, maximum=reduce == "max")
        self._reduce = reduce
        self._heads = None if heads is None else tuple(heads)
        self._choices: dict[tuple[int, int, torch.device], HeadChoice | None] = {}
        self._tokens_seen: dict[int, int] = {}
        self._recorded: dict[int, int] = {}
        self._expected = sum(len(plan.rows) for plan in self._plans)
        self._selection: tuple[object, list[RowBlock]] = None, []

    @property
    def maps(self) -> dict[int, list[Tensor]]:
        """Layer index -> for every sequence `(G, n, C)` float32 (`(R, n, C)` with `reduce="none"`)."""
        return {layer: self._maps.of_layer(layer) for layer in self._maps.layers()}

    def maps_of(self, sequence: int) -> Tensor:
        """The maps of a sequence in all layers, `(G, L, n, C)` or `(R, L, n, C)`, in the order that was asked for."""
        return self._maps.of_sequence(sequence)

    def record(self, layer: int, query: Tensor, key: Tensor, mask: Any, options: ScoreOptions) -> None:
        """Compute and keep the rows of this call's queries.

        Args:
            layer: Index of the layer.
            query: `(B, n, Sq, d)` after rotation.
            key: `(B, n_kv, Sk, d)` after rotation, cached keys first.
            mask: The mask that the kernel got; see `mask_of_rows`.
            options: Everything else that changes a score.
        """
        if query.shape[0] != len(self._plans):
            raise CaptureError(
                f"Rows were planned for {len(self._plans)} sequences, the model ran {query.shape[0]}. "
                "Do not expand the batch (beam search, several returned sequences) while capturing."
            )
        # In generation, layers that use the keys of others may get only the last of the tokens that lower layers got.
        end = max(self._tokens_seen.get(layer, 0) + query.shape[2], *self._tokens_seen.values(), 0)
        start = end - query.shape[2]
        self._tokens_seen[layer] = end
        first_key = end - key.shape[2]
        if first_key < 0 or (first_key > 0 and options.sliding_window is None):
            raise CaptureError(
                f"Layer {layer} sees {key.shape[2]} keys after {end} tokens. "
                "Begin capturing with an empty dynamic cache, and do not roll it back."
            )
        heads = self._choice(query.shape[1], key.shape[1], query.device)
        for block in self._blocks(start, end, first_key, query):
            weights = block.weights(query, key, mask, options, heads)
            if self._reduce == "none" and not weights.requires_grad:
                self._maps.put(layer, weights, block.slots, block.counts)
            else:
                self._maps.add(layer, block.reduced(weights, self._reduce))
            self._recorded[layer] = self._recorded.get(layer, 0) + block.count

    def _blocks(self, start: int, end: int, first_key: int, query: Tensor) -> list[RowBlock]:
        """The rows of a call from one token to another; the layers of a pass have the same."""
        wanted = start, end, first_key, query.shape[1], query.device
        if self._selection[0] != wanted:
            heads = query.shape[1] if self._heads is None else len(self._heads)
            rows = max(MAX_SCORES // max(query.shape[0] * heads * (end - first_key), 1), 1)
            blocks = row_blocks(self._plans, range(start, end), first_key, rows, self._reduce)
            self._selection = wanted, [block.to(query.device) for block in blocks]
        return self._selection[1]

    def _choice(self, heads: int, key_heads: int, device: torch.device) -> HeadChoice | None:
        """The requested heads of a layer; None for all."""
        key = heads, key_heads, device
        if self._heads is None or self._heads == tuple(range(heads)):
            return None
        if key not in self._choices:
            self._choices[key] = HeadChoice.of(self._heads, heads // key_heads, device)
        return self._choices[key]

    def end_after(self, rows: int) -> None:
        """Expect no more than so many rows: what is generated may end before the last row that was planned."""
        self._expected = rows

    def check_complete(self) -> None:
        """Make sure that every row of every layer was recorded.

        Raises:
            CaptureError: Some layer recorded fewer rows than planned.
        """
        for layer in sorted(self._layers):
            if (recorded := self._recorded.get(layer, 0)) != self._expected:
                raise CaptureError(
                    f"Layer {layer} recorded {recorded} of {self._expected} rows. Its attention does not "
                    "go through transformers' AttentionInterface, or its implementation changed during the pass."
                )

    def check_finite(self) -> None:
        """Make sure that the maps hold numbers; this waits for a device once, after the pass.

        Raises:
            CaptureError: A map holds NaN.
        """
        # A softmax is NaN or within [0, 1], so a sum shows it.
        by_device: dict[torch.device, list[Tensor]] = {}
        for maps in self._maps.tensors():
            by_device.setdefault(maps.device, []).append(maps.detach().sum())
        if all(device.type == "meta" or torch.stack(of).sum().isfinite() for device, of in by_device.items()):
            return
        layer = min(layer for layer, maps in self.maps.items() if any(of.isnan().any() for of in maps))
        raise CaptureError(
            f"The attention of layer {layer} is not a number (NaN). The weights, a setting of the config or the "
            "normalisation of images is damaged, or the dtype overflows: download the checkpoint again, or load it in "
            "float32."
        )


_active: ContextVar[tuple[RowRecorder, ...]] = ContextVar("vlm_adapters_recorders", default=())


def is_recording() -> bool:
    """Whether rows are recorded in this thread."""
    return bool(_active.get())


@contextmanager
def capture_rows(
    model: PreTrainedModel,
    plans: Sequence[RowPlan],
    layers: Collection[int],
    reduce: Reduction = "mean",
    heads: Sequence[int] | None = None,
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
        heads: Indices of the heads to record in each of these layers; None for all.

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
    recorder = RowRecorder(plans, layers, reduce, heads)
    language_model = language_model_of(model)
    recorded = {id(module): (layer, module) for layer, module in language_model.attention_modules() if layer in layers}
    packed: dict[int, tuple[Tensor, bool]] = {}

    def listener(
        kind: KernelKind, module: nn.Module, query: Tensor, key: Tensor, mask: Any, kwargs: dict[str, Any]
    ) -> None:
        if id(module) in recorded and recorder in _active.get():  # a pass of another model or of another thread
            options = _score_options(kind, module, query, mask, kwargs, packed)
            with _without_autocast(query.device.type):
                recorder.record(recorded[id(module)][0], query, key, mask, options)

    listening = partial(listen, [module for _, module in recorded.values()], torch.compiler.disable(listener))
    token = _active.set((*_active.get(), recorder))
    try:
        with _during(language_model.body, listening, lambda: recorder in _active.get()):
            yield recorder
    finally:
        _active.reset(token)
    recorder.check_complete()
    recorder.check_finite()


@contextmanager
def _during(
    body: nn.Module, block: Callable[[], AbstractContextManager[object]], concerned: Callable[[], bool]
) -> Iterator[None]:
    """Enter a block whenever a module runs, and leave it when that ends: a vision tower's kernel calls stay outside.

    Args:
        body: The module.
        block: Makes the block.
        concerned: Whether a pass is meant, and not one of another thread.
    """
    with block():
        pass  # an unknown kernel is an error at once
    with ExitStack() as entered, ExitStack() as hooks:

        def enter(*_: object) -> None:
            if concerned():
                entered.enter_context(block())

        def leave(*_: object) -> None:
            if concerned():
                entered.close()

        hooks.callback(body.register_forward_pre_hook(enter).remove)
        hooks.callback(body.register_forward_hook(leave, always_call=True).remove)
        yield


def _recomputes(model: nn.Module) -> bool:
    """Whether layers with attention are recomputed; transformers does so in training mode only."""
    return any(
        getattr(layer, "gradient_checkpointing", False)
        and layer.training
        and any(hasattr(part, "layer_idx") for part in layer.modules())
        for layer in model.modules()
    )


def _without_autocast(device: str) -> AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # the meta device has none
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _score_options(
    kind: KernelKind,
    module: nn.Module,
    query: Tensor,
    mask: Any,
    kwargs: dict[str, Any],
    packed: dict[int, tuple[Tensor, bool]],
) -> ScoreOptions:
    given = {name for name, value in kwargs.items() if value is not None}
    if given & _PACKED or (kind == "flash" and _is_packed(kwargs.get("position_ids"), mask, len(query), packed)):
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


def _is_packed(position_ids: Tensor | None, mask: Any, batch: int, found: dict[int, tuple[Tensor, bool]]) -> bool:
    """Whether transformers treats one sequence without padding as several, because positions start again.

    What was `found` of a tensor is kept with it: layers share one, and looking at it waits for the device.
    """
    if position_ids is None or mask is not None or batch != 1 or position_ids.shape[-1] == 1:
        return False
    if id(position_ids) not in found:
        found[id(position_ids)] = position_ids, bool((position_ids.diff(dim=-1) != 1).any())
    return found[id(position_ids)][1]
