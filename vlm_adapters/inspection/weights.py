"""Bytes of a model's weights in a dtype, or quantised as transformers and bitsandbytes would leave them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

Quantization = Literal["int8", "nf4"]
"""Names under which `load_adapter` takes the quantisations of bitsandbytes."""

_BLOCK, _LEVELS, _FLOAT = 64, 16, 4
"""nf4 scales blocks of 64 weights by a float32 each, and keeps a table of its 16 levels for every layer."""


def weight_bytes(model: nn.Module, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
    """Bytes of all parameters and buffers; tied ones count once.

    Args:
        model: The model; it may be on the meta device.
        dtype: Dtype of the floating tensors that are not quantised: embeddings, norms, convolutions, the head over
            the vocabulary and what is tied to it.
        quantization: Quantisation of the linear layers, those of the vision tower included, as transformers does it;
            None for none.
    """
    quantised = _quantised(model) if quantization and isinstance(model, PreTrainedModel) else {}
    count = 0
    for tensor in {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values():
        if layer := quantised.get(id(tensor)):
            count += _quantised_bytes(layer, quantization)
        else:
            count += tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.itemsize)
    return count


def working_bytes(model: PreTrainedModel, tokens: int, quantization: Quantization | None) -> int:
    """Bytes that the largest quantised layer takes for a moment, beside what it takes unquantised.

    Args:
        model: The model; it may be on the meta device.
        tokens: Tokens of the sequence.
        quantization: nf4 makes the layer's weights in half precision; int8 keeps its input in 8 bits, and its product
            in 32.
    """
    weights = [layer.weight for layer in _quantised(model).values()] if quantization else []
    shapes = [tuple(weight.shape) for weight in weights]
    if quantization == "nf4":
        return max((rows * columns * torch.half.itemsize for rows, columns in shapes), default=0)
    return max((tokens * (columns + rows * torch.int32.itemsize) for rows, columns in shapes), default=0)


def _quantised(model: PreTrainedModel) -> dict[int, nn.Linear]:
    """The layers that are quantised, by the id of their weight."""
    kept = [*get_keys_to_not_convert(model), *(getattr(model, "_keep_in_fp32_modules", None) or ())]
    return {
        id(module.weight): module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and should_convert_module(name, kept)
    }


def _quantised_bytes(layer: nn.Linear, quantization: Quantization | None) -> int:
    rows, columns = layer.weight.shape
    if quantization == "int8":
        return rows * columns + rows * _FLOAT  # and a scale per row
    blocks = -(-rows * columns // _BLOCK)
    return -(-rows * columns // 2) + (blocks + _LEVELS) * _FLOAT
