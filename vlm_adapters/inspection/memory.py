"""Memory of a forward pass, counted on the meta device: nothing is computed, and no weights are needed.

Counted: the tensors that one pass of the language model makes over a sequence of embeddings (1, S, D) in
bfloat16, without cache and without logits, at the moment when most bytes of them are alive. The embeddings and the maps
that capture keeps are included. Not counted: weights, the vision tower, what a kernel uses inside (the fused attention
kernel counts as its output alone; convolutions and small enlargements as their copies in another layout, too), and what
an allocator reserves beyond its tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.row_blocks import RowPlan

DTYPE = torch.bfloat16
"""Dtype of the weights and activations."""
_SIDES_IN_ANOTHER_LAYOUT = 128
"""Height and width together up to which torch enlarges images with channels last."""


@dataclass(frozen=True)
class PassMemory:
    """Peak bytes of the activations of one forward pass.

    Attributes:
        plain: A pass with the fused kernel (sdpa).
        rows: The same pass with exact attention rows recorded in all layers that have attention.
        states: The same pass with also the hidden states of those tokens after every layer.
        eager: A pass with transformers' eager kernel and `output_attentions=True`, which gives all rows of all layers.
    """

    plain: int
    rows: int
    states: int
    eager: int


def pass_memory(config: PreTrainedConfig, tokens: int, rows: int, columns: int, layers: Sequence[int]) -> PassMemory:
    """Count the memory that a pass of a language model over one sequence needs.

    Args:
        config: Config of the language model.
        tokens: Length `S` of the sequence.
        rows: Number of recorded rows, one map each: those of the last tokens.
        columns: Number of image tokens in the sequence.
        layers: Layers whose rows are recorded.

    Raises:
        RuntimeError: The model cannot run on the meta device, because its computation depends on values.
    """
    plan = RowPlan(torch.arange(tokens - rows, tokens), torch.arange(rows), torch.arange(columns))

    def run(model: PreTrainedModel, **options: bool) -> object:
        return model(**_embedded(config, tokens), use_cache=False, **options)

    def run_with_rows(model: PreTrainedModel, state_layers: Collection[int] = ()) -> object:
        with (
            capture_rows(model, [plan], layers) as recorder,
            capture_hidden_states(model, state_layers, [plan.rows], torch.device("meta")) as states,
        ):
            run(model)
        return recorder, states

    all_layers = range(config.num_hidden_layers)
    eager = _on_meta(config, "eager")
    try:
        fused = _on_meta(config, "sdpa")
    except ValueError:  # models that cap their scores, such as Gemma 2, take the eager kernel only
        fused = eager
    return PassMemory(
        plain=peak_bytes(fused, lambda: run(fused)),
        rows=peak_bytes(fused, lambda: run_with_rows(fused)),
        states=peak_bytes(fused, lambda: run_with_rows(fused, all_layers)),
        eager=peak_bytes(eager, lambda: run(eager, output_attentions=True)),
    )


def peak_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Largest sum of bytes of the live meta tensors that `run` makes; those of the model are not counted."""
    counter = LiveBytes(model)
    with torch.no_grad(), FusedAttention(), counter:
        run()
    return counter.peak


def _embedded(config: PreTrainedConfig, tokens: int) -> dict[str, Tensor]:
    """What a sequence of tokens is looked up as: its embeddings, and those that the layers of some models add."""
    given: dict[str, tuple[int, ...]] = {"inputs_embeds": (config.hidden_size,)}
    if width := getattr(config, "hidden_size_per_layer_input", 0):  # of the small Gemma 4
        given["per_layer_inputs"] = (config.num_hidden_layers, width)
    return {name: torch.empty(1, tokens, *shape, dtype=DTYPE, device="meta") for name, shape in given.items()}


def _on_meta(config: PreTrainedConfig, kernel: str) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModel.from_config(deepcopy(config), dtype=DTYPE, attn_implementation=kernel)
    model.eval()
    return model


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the live storages that operations made on the meta device.

    Args:
        model: Its weights and buffers are not counted.

    Attributes:
        peak: Most bytes that were alive at once.
        live: Bytes that are alive.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.live = 0
        weights = [*model.parameters(), *model.buffers()]
        self._known = WeakIdKeyDictionary({tensor.untyped_storage(): None for tensor in weights})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:  # noqa: SLF001
            return True  # the only value that models read here: whether the sequence has no padding and no packing
        made = func(*args, **(kwargs or {}))
        self.count_made(func, args, made)
        return made

    def count_made(self, func: Any, args: tuple[Any, ...], made: Any) -> None:
        """Count what an operation made, and for a moment what it works on."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self.count(tensor.untyped_storage())
        self.peak = max(self.peak, self.live + _working_bytes(func, args, made))

    def count(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed; one that is counted already counts no more."""
        if storage not in self._known:
            self._known[storage] = None
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, storage.nbytes())

    def next_peak(self) -> int:
        """The peak since the last call; the next one begins with what is alive now."""
        peak, self.peak = self.peak, self.live
        return peak

    def _free(self, count: int) -> None:
        self.live -= count


def _working_bytes(func: Any, args: tuple[Any, ...], made: Any) -> int:
    """Bytes of the copies in another memory layout that an operation works on, as measured on a CPU."""
    if func is torch.ops.aten.convolution.default:
        return int(args[0].nbytes)
    enlarges = getattr(func, "overloadpacket", None) is torch.ops.aten.upsample_bilinear2d
    if enlarges and made.shape[1] > 1 and sum(made.shape[2:]) <= _SIDES_IN_ANOTHER_LAYOUT:
        return int(args[0].nbytes + made.nbytes)
    return 0


class FusedAttention(TorchFunctionMode):
    """Treats attention as one operation: on the meta device it would be several, with a matrix of all scores."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, value = args[0], args[2]
        batch, heads, length, _ = query.shape
        # With the memory layout of the kernels, so that joining the heads copies nothing.
        return query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
