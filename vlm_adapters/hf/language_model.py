"""The language model inside a transformers model, and its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from vlm_adapters.backbone.modules import modules_of
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
        """Layer index and module of every module that names its layer in `layer_idx` and its kernel in `config`."""
        for index, layer in enumerate(self.layers):
            for module in modules_of(layer):
                # A module looks in many places for what it has not.
                if vars(module).get("layer_idx") == index and hasattr(module, "config"):
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


class _LayerReached(Exception):  # noqa: N818 - no error: it ends a pass that has given all that it was run for
    """The last layer that is needed has run."""


_active: ContextVar[object] = ContextVar("vlm_adapters_stop_after", default=None)


@contextmanager
def stop_after(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """End the forward pass inside the block once a layer of the language model has run, and leave the block.

    Hooks that were set on the layer before see its output. The last layer stops nothing: the final norm follows it.

    Args:
        model: A transformers model.
        layer: Index of the last layer that is needed.
    """
    layers = language_model_of(model).layers
    if layer == len(layers) - 1:
        yield
        return

    mark = object()

    def stop(_: nn.Module, __: tuple[Any, ...], ___: Any) -> None:
        if _active.get() is mark:  # not in a pass of another thread
            raise _LayerReached

    token = _active.set(mark)
    hook = layers[layer].register_forward_hook(stop)
    try:
        yield
    except _LayerReached:
        pass
    finally:
        hook.remove()
        _active.reset(token)


def without_compiled_code(model: nn.Module) -> AbstractContextManager[object]:
    """A block in which compiled modules run without `torch.compile`, since compiled code calls no hooks."""
    if any(module._compiled_call_impl is not None for module in modules_of(model)):  # noqa: SLF001 (no public reader)
        eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager
    return nullcontext()
