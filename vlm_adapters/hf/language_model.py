"""The language model inside a transformers model, and its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from vlm_adapters.errors import CaptureError


@dataclass(frozen=True)
class LanguageModel:
    """The language model within a vision-language model.

    Attributes:
        body: The module that runs the layers; its output is the last hidden state, after the final norm.
        layers: Its layers, in order.
    """

    body: nn.Module
    layers: nn.ModuleList

    def attention_modules(self) -> Iterator[tuple[int, nn.Module]]:
        """Layer index and module of every module that names its layer in `layer_idx`."""
        for index, layer in enumerate(self.layers):
            for module in layer.modules():
                if getattr(module, "layer_idx", None) == index:
                    yield index, module


def language_model_of(model: PreTrainedModel) -> LanguageModel:
    """Find the language model's layers.

    Raises:
        CaptureError: The model has no list of as many layers as its config says.
    """
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    for body in model.get_decoder().modules():
        for child in body.children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return LanguageModel(body, child)
    raise CaptureError(
        f"The language model of {type(model).__name__} has no list of {count} layers, so nothing can be captured "
        "from them. Write an `extract` for its family."
    )


def without_compiled_code(model: nn.Module) -> AbstractContextManager[object]:
    """A block in which compiled modules run without `torch.compile`, since compiled code calls no hooks."""
    if any(module._compiled_call_impl is not None for module in model.modules()):  # noqa: SLF001 (no public reader)
        eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager
    return nullcontext()
