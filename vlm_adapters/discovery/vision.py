"""The vision side of a model alone: from pixels to the embeddings that the language model would read.

A hook stops the model where its language model gets `inputs_embeds`. `quiet` also keeps every patch from seeing the
others: attention within a tower gives each patch its own value, so an embedding depends on its own pixels only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from vlm_adapters.errors import BackboneError, CaptureError
from vlm_adapters.hf.language_model import language_model_of

_SOFTMAX = (torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax)


class _ReachedError(Exception):
    pass


class VisionSide:
    """Runs a model up to its language model.

    Attributes:
        passes: Number of passes so far.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._accepted = set(signature(type(model).forward).parameters)
        self.passes = 0

    def embeddings(self, features: Mapping[str, Any], *, quiet: bool) -> Tensor:
        """`(S, D)` in float32: the input embeddings of the language model for one image.

        Args:
            features: What the processor gives for it.
            quiet: Whether every patch sees itself only.

        Raises:
            BackboneError: The language model is given no embeddings, so no token of the sequence shows the image.
        """
        tensors = {name: _placed(value, self._model) for name, value in features.items() if name in self._accepted}
        self.passes += 1
        with torch.no_grad(), _stopped(self._model, tuple(tensors["input_ids"].shape)) as reached:
            try:
                if quiet:
                    with EachItself():
                        self._model.base_model(**tensors, use_cache=False)
                else:
                    self._model.base_model(**tensors, use_cache=False)
            except _ReachedError:
                return reached[0][0].float().cpu()
        raise BackboneError(
            "No language model gets the sequence of the processor: the model is an encoder with a decoder, or puts the "
            "image before the text."
        )


@contextmanager
def _stopped(model: PreTrainedModel, shape: tuple[int, ...]) -> Iterator[list[Tensor]]:
    reached: list[Tensor] = []
    first = _first_layer(model)

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        embeds = kwargs.get("inputs_embeds", kwargs.get("hidden_states", args[0] if args else None))
        if isinstance(embeds, Tensor) and tuple(embeds.shape[:2]) == shape:
            reached.append(embeds)
            raise _ReachedError

    hooks = [
        module.register_forward_pre_hook(stop, with_kwargs=True)
        for module in model.modules()
        if "inputs_embeds" in signature(module.forward).parameters or module is first
    ]
    try:
        yield reached
    finally:
        for hook in hooks:
            hook.remove()


def _first_layer(model: PreTrainedModel) -> nn.Module | None:
    """The first layer of the language model, for models whose layers are run by the model itself."""
    try:
        return language_model_of(model).layers[0]
    except (CaptureError, AttributeError):
        return None


class EachItself(TorchFunctionMode):
    """Attention of tokens to themselves, where queries and keys are the same tokens; all else as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            if query.shape[-2] == key.shape[-2]:
                groups = query.shape[-3] // value.shape[-3] if query.ndim > 3 else 1
                return value.repeat_interleave(groups, dim=-3) if groups > 1 else value
        elif func in _SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            if scores.ndim > 2 and scores.shape[-1] == scores.shape[-2]:
                whole = torch.eye(scores.shape[-1], dtype=kwargs.get("dtype") or scores.dtype, device=scores.device)
                return whole.expand(scores.shape)
        return func(*args, **kwargs)


def _placed(value: Any, model: PreTrainedModel) -> Any:
    if isinstance(value, Tensor):
        return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, list | tuple):
        return type(value)(_placed(each, model) for each in value)
    return value
