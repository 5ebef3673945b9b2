"""Attention as a lever: what chosen heads give to a region of the image, raised or lowered.

A replacement stands before the kernel of the chosen heads' layers (`vlm_adapters.hf.kernels`) and hands it a mask with
a number added to the scores of some keys. The kernel, the weights and all other layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.grids import BackboneInputs, ImageGrid
from vlm_adapters.errors import CaptureError, NoGridError, OptionError, RequestError
from vlm_adapters.geometry import Box
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.hf.capture import is_recording
from vlm_adapters.hf.kernels import Kernel, kernel_kind, replace
from vlm_adapters.hf.language_model import language_model_of, without_compiled_code

_active: ContextVar[tuple[_Steering, ...]] = ContextVar("vlm_adapters_steering", default=())


@contextmanager
def steered_attention(
    adapter: TransformersBackbone,
    inputs: BackboneInputs,
    box: Box,
    heads: Collection[tuple[int, int]],
    strength: float,
) -> Iterator[None]:
    """Raise or lower what chosen heads give to a region of the image in the passes that run inside the block.

    `strength` is added to the scores, before the softmax, of the image tokens in the box, for every token that comes
    after the image: the odds of the region grow by a factor of e to the strength. Passes are those of the inputs, with
    their answers as they are generated. Blocks within each other add up. Outside the block outputs are what they were,
    bit for bit.

    Args:
        adapter: The backbone, with kernel sdpa or eager.
        inputs: The prompts as they will pass, from `adapter.preprocess`.
        box: The region of each prompt's first image, in its pixels; it takes the cells whose centres it holds.
        heads: Layer index and head index of every head.
        strength: What is added: above 0 raises, below 0 lowers.

    Raises:
        RequestError: There is no such layer or head.
        OptionError: The box holds no centre of an image token.
        NoGridError: The image tokens have no places in the image.
        CaptureError: Attention cannot be steered here: another kernel, a sliding window, a static cache, a batch of
            another size; or rows are recorded, which would not show what was added.
    """
    chosen = _by_layer(adapter, heads)
    language_model = language_model_of(adapter.model)
    modules = {id(module): (layer, module) for layer, module in language_model.attention_modules() if layer in chosen}
    for _, module in modules.values():
        if kernel_kind(getattr(module.config, "_attn_implementation", None)) not in ("sdpa", "eager"):
            raise CaptureError('Attention can be steered with attn_implementation="sdpa" or "eager" alone.')
    located = adapter.locate_image_tokens(inputs)
    regions = [_region([grid for grid in grids if grid.image == 0], box) for grids in located]
    steering = _Steering(regions, {key: chosen[layer] for key, (layer, _) in modules.items()}, strength)
    token = _active.set((*_active.get(), steering))
    try:
        with without_compiled_code(adapter.model), replace([module for _, module in modules.values()], steering.attend):
            yield
    finally:
        _active.reset(token)


@dataclass(frozen=True, eq=False)
class _Region:
    """The image tokens of a region in one sequence.

    Attributes:
        keys: Their positions.
        first: The position from which on tokens are steered: the one after the image.
    """

    keys: Tensor
    first: int


@dataclass(frozen=True, eq=False)
class _Steering:
    """What is added within one block.

    Attributes:
        regions: One for every sequence of the batch.
        heads: Chosen heads by the id of their attention module.
        strength: What is added.
        seen: Number of tokens that passed so far, by the id of the module.
    """

    regions: Sequence[_Region]
    heads: dict[int, list[int]]
    strength: float
    seen: dict[int, int] = field(default_factory=dict)

    def attend(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, /, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Run a kernel; where the module is one of those that are steered, with another mask."""
        if self not in _active.get() or id(module) not in self.heads:
            return kernel(module, query, key, value, mask, **options)
        start = self._start(module, query, key, options)
        bias = _additive(mask, query, key, start)
        bias = bias.expand(len(query), query.shape[1], -1, -1).clone()
        for of_sequence, region in zip(bias, self.regions, strict=True):
            first = max(region.first - start, 0)
            heads, keys = torch.tensor(self.heads[id(module)]), region.keys
            if first < query.shape[2]:
                rows = torch.arange(first, query.shape[2])
                of_sequence[heads[:, None, None], rows[:, None], keys.to(query.device)] += self.strength
        return kernel(module, query, key, value, bias, **options)

    def _start(self, module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> int:
        """The position of the first query: passes begin with an empty cache, and go on with what is in it."""
        if is_recording():
            raise CaptureError("Rows cannot be recorded where attention is steered: they would not show what is added.")
        if len(query) != len(self.regions):
            raise CaptureError(
                f"Attention was to be steered in {len(self.regions)} sequences, and the model ran {len(query)}. Steer "
                "the inputs that pass, without beams."
            )
        count, end = query.shape[2], key.shape[2]
        begun = 0 if count == end else self.seen.get(id(module), 0)
        self.seen[id(module)] = begun + count
        if options.get("sliding_window") is not None or end != begun + count:
            raise CaptureError(
                f"A layer sees {end} keys after {begun + count} tokens. Attention can be steered with an empty dynamic "
                "cache and without a sliding window."
            )
        return begun


def _additive(mask: Any, query: Tensor, key: Tensor, start: int) -> Tensor:
    """The mask that a kernel got, `(B or 1, n or 1, Sq, Sk)`, as numbers to add to scores."""
    lowest = torch.finfo(query.dtype).min
    if mask is None:  # the kernel is causal by itself
        rows = torch.arange(start, start + query.shape[2], device=query.device)
        mask = (torch.arange(key.shape[2], device=query.device) <= rows[:, None])[None, None]
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, lowest)
    found: Tensor = mask.to(query.dtype)
    return found


def _by_layer(adapter: TransformersBackbone, heads: Collection[tuple[int, int]]) -> dict[int, list[int]]:
    info, found = adapter.info, dict[int, list[int]]()
    for layer, head in dict.fromkeys(heads):
        if layer not in info.attention_layers or not 0 <= head < info.num_heads:
            raise RequestError(
                f"There is no head {layer}.{head}. {info.model_type} has {info.num_heads} heads in each of the layers "
                f"{', '.join(map(str, info.attention_layers))}."
            )
        found.setdefault(layer, []).append(head)
    return found


def _region(grids: Sequence[ImageGrid], box: Box) -> _Region:
    """The image tokens whose cells have their centres in a box."""
    left, top, right, bottom = box
    keys = []
    for grid in grids:
        if grid.box is None:
            raise NoGridError
        for row in range(grid.shape[0]):
            for column in range(grid.shape[1]):
                x0, y0, x1, y1 = grid.cell_box(row, column)
                if left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom:
                    keys.append(int(grid.tokens[row, column]))
    if not keys:
        raise OptionError(f"The box {box} holds no centre of an image token. Give a larger one, in pixels.")
    return _Region(torch.tensor(keys), 1 + max(int(grid.tokens.max()) for grid in grids))
