"""A real model run on the meta device: nothing is computed but the small tensors whose values decide what runs.

Models read a few values: where the image tokens are, how many patches an image has, whether there is padding. Whatever
follows from known values by operations is computed beside the meta tensors, on the CPU; weights and pixels are never
known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from vlm_adapters.inspection.memory import LiveBytes

_MOST_KNOWN = 2**24
"""Numbers of the largest tensor whose values are kept."""
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
_UNEQUAL = (torch.ops.aten.ne.Scalar, torch.ops.aten.ne.Tensor)
_UNDEFINED = re.compile("empty|rand|normal|uniform|bernoulli|multinomial")
"""Names of operations whose result has no value that follows from its arguments."""
_HOST = torch.device("cpu")


class MetaPass(LiveBytes):
    """Counts live bytes on the meta device, and knows the values of tensors that were moved there.

    A value of a float that is not known reads as 0, and of a bool as True. Other unknown values are an error.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._values = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        if not any(tensor.is_meta for tensor in given) and not _is_meta(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001
            return self._read(args[0])
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == _HOST:  # noqa: SLF001
            return self._on_host(args[0], kwargs.get("dtype"))
        return self._run(func, args, kwargs, given)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        """Run an operation on the meta device, and beside it on the values, if they are known."""
        known = all(not tensor.is_meta or tensor in self._values for tensor in given)
        known = known and not _UNDEFINED.search(func.name())
        on_values = (
            (lambda: func(*tree_map(self._value, args), **_on_host(tree_map(self._value, kwargs)))) if known else None
        )
        try:
            made = _on_meta(func, tree_map(_to_meta, self._without_masks(func, args)), tree_map(_to_meta, kwargs))
        except RuntimeError:  # `NotImplementedError` is one: the shape of the result may depend on values
            if on_values is None:
                raise
            values = on_values()  # raises again what has another cause
            made = tree_map(_like_on_meta, values)
        else:
            values = on_values() if on_values and _is_small(made) else None
        self.count_made(func, args, made)
        if values is None:
            self._forget(func, args)
            values = _true(func, made)
        for tensor, value in zip(tree_leaves(made), tree_leaves(values), strict=False):
            if isinstance(tensor, Tensor) and tensor.is_meta and value is not None:
                self._values[tensor] = value
        return made

    def _forget(self, func: Any, args: tuple[Any, ...]) -> None:
        """Forget the values of what an operation wrote without knowing what."""
        for argument, value in zip(func._schema.arguments, args, strict=False):  # noqa: SLF001 - no public reader
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                self._values.pop(value, None)

    def _read(self, tensor: Tensor) -> Any:
        if tensor in self._values:
            return self._values[tensor].item()
        if tensor.dtype == torch.bool:
            return True
        if tensor.is_floating_point():
            return 0.0
        raise RuntimeError("The model asks for values that follow from its weights, which are not there.")

    def _on_host(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        """A copy in the host's memory, which is not counted; unknown values stay on the meta device."""
        if tensor in self._values:
            copied: Tensor = self._values[tensor].to(dtype or tensor.dtype, copy=True)
            return copied
        return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device="meta")

    def _value(self, argument: Any) -> Any:
        return self._values[argument] if isinstance(argument, Tensor) and argument.is_meta else argument

    def _without_masks(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of indexing with places in the stead of masks; one that is not known is true everywhere."""
        if func not in _INDEXING:
            return args
        indices: list[Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool:
                indices.append(index)
                continue
            known = not index.is_meta or index in self._values
            mask = self._value(index) if known else torch.ones(index.shape, dtype=torch.bool, device=_HOST)
            indices += mask.nonzero(as_tuple=True)
        return args[0], indices, *args[2:]


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _on_meta(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is not torch.ops.aten._grouped_mm.default:  # noqa: SLF001
        return func(*args, **kwargs)
    # The products of experts have a form on the meta device for bfloat16 alone.
    halved = [argument.bfloat16() if _is_float(argument) else argument for argument in args]
    return func(*halved, **kwargs).to(args[0].dtype)


def _is_float(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.is_floating_point()


def _to_meta(argument: Any) -> Any:
    return argument.to("meta") if isinstance(argument, Tensor) and not argument.is_meta else argument


def _on_host(kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs | {"device": _HOST} if _is_meta(kwargs.get("device")) else kwargs


def _like_on_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _true(func: Any, made: Any) -> Tensor | None:
    """What is unknown is taken to differ from anything, such as from padding; all else stays unknown."""
    return torch.ones(made.shape, dtype=torch.bool, device=_HOST) if func in _UNEQUAL and _is_small(made) else None


def _is_small(made: Any) -> bool:
    return all(prod(tensor.shape) <= _MOST_KNOWN for tensor in tree_leaves(made) if isinstance(tensor, Tensor))


class ValuesOfPython(TorchFunctionMode):
    """Lets values pass between Python and the meta device, for what torch does before any dispatch mode is asked."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and args[0].is_meta:
            return args[0].cpu().tolist()
        if func in (torch.tensor, torch.as_tensor) and _is_meta(kwargs.get("device")):
            return func(*tree_map(_on_cpu, args), **kwargs | {"device": _HOST}).to("meta")
        if func is Tensor.new_tensor and args[0].is_meta:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs, "device": _HOST}).to("meta")
        return func(*args, **kwargs)


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
