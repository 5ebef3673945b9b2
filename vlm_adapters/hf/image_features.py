"""What a vision tower makes of an image, kept while one batch runs: an image that occurs several times passes it once.

`get_image_features` of the model is replaced on this model, not on its class, by a function that gives the tower every
image once and hands out what came of it as often as the pass has the image.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from inspect import signature
from operator import le
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vlm_adapters.backbone.batch_tensors import BatchTensors
from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.hf.shared_prefix import ForwardPass, UnknownFormError

_METHOD = "get_image_features"
_FIELDS = ("pooler_output", "deepstack_features")
"""What models read of the output: the features of all images, and those of earlier layers of the tower."""

_active: ContextVar[ImageFeatures | None] = ContextVar("vlm_adapters_image_features", default=None)
_lock = threading.Lock()
_users: Counter[int] = Counter()


class ImageFeatures:
    """The features of the images of a batch, computed in the first pass that has them.

    Args:
        model: The model.
        inputs: The batch.
        passes: All passes over the batch.
        tensors: The tensors of the batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: BackboneInputs,
        passes: Sequence[ForwardPass],
        tensors: BatchTensors,
    ) -> None:
        images = [image for forward_pass in passes for image in forward_pass.images]
        repeated = len(set(images)) < len(images) and not any(prompt.videos for prompt in inputs.prompts)
        self._repeated = repeated and hasattr(model.base_model, _METHOD)
        self._body, self._tensors = model.base_model, tensors
        self._counts = [len(tokens) for of_prompt in inputs.image_tokens for tokens in of_prompt]
        self._kept: dict[int, dict[str, Any]] = {}
        self._join: dict[str, Callable[[Sequence[Any]], Any]] = {}
        self._output: Any = None
        self._images: tuple[int, ...] = ()

    @contextmanager
    def of(self, forward_pass: ForwardPass) -> Iterator[None]:
        """Give the model the features of the images of a pass while the block runs."""
        if not self._repeated:
            yield
            return
        self._images = forward_pass.images
        token = _active.set(self)
        try:
            with _replaced(self._body):
                yield
        finally:
            _active.reset(token)

    def give(self, compute: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """What the model's method returns for the images of the pass.

        Args:
            compute: The method.
            arguments: Its arguments for these images.

        Raises:
            UnknownFormError: It is not known which features belong to which image.
        """
        if missing := sorted(set(self._images) - set(self._kept)):
            chosen = self._tensors.chosen(missing)
            self._output = compute(**{name: chosen.get(name, value) for name, value in arguments.items()})
            self._keep(missing)
        found = copy(self._output)
        for name, join in self._join.items():
            setattr(found, name, join([self._kept[image][name] for image in self._images]))
        return found

    def _keep(self, images: Sequence[int]) -> None:
        counts = [self._counts[image] for image in images]
        for image in images:
            self._kept[image] = {}
        # A model that pools nothing reads what its tower gives.
        pooled = getattr(self._output, "pooler_output", None) is not None
        for name in _FIELDS if pooled else ("last_hidden_state",):
            if (value := getattr(self._output, name, None)) is not None:
                divide = _divided_layers if name == "deepstack_features" else _divided
                parts, self._join[name] = divide(value, counts)
                for image, part in zip(images, parts, strict=True):
                    self._kept[image][name] = part
        if not self._join:
            raise UnknownFormError("The image features of the model are not known to have a part per image.")


@contextmanager
def _replaced(body: Any) -> Iterator[None]:
    """Replace the method of a model while the block runs; threads whose blocks overlap share the replacement."""
    with _lock:
        if not _users[id(body)]:
            setattr(body, _METHOD, _replacement(getattr(body, _METHOD)))
        _users[id(body)] += 1
    try:
        yield
    finally:
        with _lock:
            _users[id(body)] -= 1
            if not _users[id(body)]:
                delattr(body, _METHOD)
                del _users[id(body)]


def _replacement(compute: Callable[..., Any]) -> Callable[..., Any]:
    parameters = signature(compute)

    def get_image_features(*args: Any, **kwargs: Any) -> Any:
        features = _active.get()
        if features is None:  # a pass of another thread
            return compute(*args, **kwargs)
        bound = parameters.bind(*args, **kwargs).arguments
        named = {**{name: value for name, value in bound.items() if name != "kwargs"}, **bound.get("kwargs", {})}
        try:
            return features.give(compute, named)
        except UnknownFormError:
            return compute(*args, **kwargs)

    return get_image_features


def _divided(value: Any, counts: Sequence[int]) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """Divide features among images of so many tokens each; also returns what joins such parts again.

    Raises:
        UnknownFormError: They are neither the features of all tokens in order, in one tensor or several, nor a tensor
            per image.
    """
    if isinstance(value, Tensor):  # (tokens, D), or (images or tiles, tokens of one, D)
        tokens = value.shape[:-1].numel()
        of_row = max(1, tokens // max(1, len(value)))
        if tokens == sum(counts) and not any(count % of_row for count in counts):
            return list(value.split([count // of_row for count in counts])), lambda parts: torch.cat(list(parts))
    else:
        tokens_of = [part.shape[:-1].numel() for part in value if isinstance(part, Tensor)]
        if len(tokens_of) == len(counts) and all(map(le, tokens_of, counts)):  # newlines may be none of the tower's
            return list(value), list
        if sum(tokens_of) == sum(counts):  # a tensor per tile
            return list(torch.cat([part.flatten(end_dim=-2) for part in value]).split(list(counts))), list
    raise UnknownFormError(f"{sum(counts)} tokens of {len(counts)} images do not divide what the model makes of them.")


def _divided_layers(value: Any, counts: Sequence[int]) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The same for features of several layers."""
    parts, joins = zip(*(_divided(of_layer, counts) for of_layer in value), strict=True)

    def join(chosen: Sequence[Any]) -> list[Any]:
        by_layer = zip(*chosen, strict=True)
        return [of_layer_join(list(of_layer)) for of_layer_join, of_layer in zip(joins, by_layer, strict=True)]

    return list(zip(*parts, strict=True)), join
