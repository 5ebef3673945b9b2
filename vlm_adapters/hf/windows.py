"""Windows, frames and images of a vision tower that pass its attention together.

Towers of the Qwen kind hold all patches of a batch in one sequence, with boundaries (`cu_seqlens`) between windows or
images that do not see each other, and call their kernel once for each of them, which may be a hundred times per layer.
Here the attention module is given one sequence, so that it calls the kernel once, and the kernel is replaced by one
that runs all parts of equal length as one batch. Windows that an image's border cuts are padded to the others' length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.modules import modules_of
from vlm_adapters.errors import BackboneError
from vlm_adapters.hf import kernels
from vlm_adapters.hf.kernels import Kernel, interface_of

_KERNELS = ("sdpa", "eager")
"""The kernels that are called once per part; flash kernels take the boundaries themselves."""
_MOST_PADDING, _LONGEST_PADDED = 0.25, 256
"""Share of padding and length of a part up to which padding costs less than the calls that it saves."""

_active: ContextVar[_Windows | None] = ContextVar("vlm_adapters_windows", default=None)


@contextmanager
def batched_windows(model: nn.Module) -> Iterator[None]:
    """Let parts of like length pass the attention of vision towers together while the block runs.

    Does nothing for a tower that takes no boundaries, or whose kernel is neither sdpa nor eager. Sums are the same, but
    a kernel may add in another order for a batch: outputs of a float32 tower may differ by 1e-6.

    Args:
        model: A transformers model.
    """
    modules = [module for module in modules_of(model) if _takes_boundaries(module)]
    # Layers that are recomputed in the backward pass, outside the block, must do the same as inside it.
    modules = [module for module in modules if not (module.training and torch.is_grad_enabled())]
    windows = _Windows()
    token = _active.set(windows)
    try:
        with ExitStack() as stack:
            for module in modules:
                hook = module.register_forward_pre_hook(windows.before, with_kwargs=True)
                stack.callback(hook.remove)
            stack.enter_context(kernels.replace(modules, windows.attend))
            yield
    finally:
        _active.reset(token)


def _takes_boundaries(module: nn.Module) -> bool:
    """Whether this is an attention module that calls its kernel once per part."""
    return (
        _is_given_boundaries(type(module).forward)
        and getattr(getattr(module, "config", None), "_attn_implementation", None) in _KERNELS
        and interface_of(module) is not None
        and not any(_is_given_boundaries(type(part).forward) for part in modules_of(module)[1:])
    )


@cache
def _is_given_boundaries(forward: Callable[..., Any]) -> bool:
    return "cu_seqlens" in signature(forward).parameters


@dataclass(frozen=True)
class _Lengths:
    """The lengths of the parts of a sequence.

    Attributes:
        total: Length of the sequence.
        groups: Length and number of the parts of every length, in the order of `order`.
        order: `(S,)`: the positions sorted by the length of their part, or those of padded parts; None where they are
            already.
        inverse: `(S,)`: where every position went; None likewise.
        mask: `(parts, 1, 1, length)` float32, added to scores: minus infinity at padding; None where there is none.
    """

    total: int
    groups: tuple[tuple[int, int], ...]
    order: Tensor | None = None
    inverse: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, boundaries: Tensor, device: torch.device) -> _Lengths:
        ends = torch.tensor(boundaries.tolist(), device="cpu")  # waits for the device, once per pass
        lengths = ends.diff()
        total, longest = int(lengths.sum()), int(lengths.max())
        distinct, counts = lengths.unique(return_counts=True)
        padded = longest * len(lengths)
        if len(distinct) > 1 and longest <= _LONGEST_PADDED and padded <= (1 + _MOST_PADDING) * total:
            places = torch.arange(longest, device="cpu")
            kept = places < lengths[:, None]
            order = (ends[:-1, None] + places.minimum(lengths[:, None] - 1)).flatten()
            inverse = kept.flatten().nonzero().flatten()
            mask = torch.zeros(kept.shape, device="cpu").masked_fill(~kept, float("-inf"))[:, None, None]
            return cls(total, ((longest, len(lengths)),), order.to(device), inverse.to(device), mask.to(device))
        groups = tuple((length, count) for length, count in zip(distinct.tolist(), counts.tolist(), strict=True))
        of_positions = lengths.repeat_interleave(lengths)
        order = of_positions.argsort(stable=True)
        if bool((of_positions.diff() >= 0).all()):
            return cls(total, groups)
        return cls(total, groups, order.to(device), order.argsort().to(device))


class _Windows:
    """The boundaries within one block: taken away before an attention module runs, and used at its kernel."""

    def __init__(self) -> None:
        self._boundaries: Tensor | None = None
        # With the tensor, so that no other can get its id.
        self._lengths: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, _Lengths]] = {}

    def before(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the boundaries from an attention module's arguments, so that it sees one sequence."""
        # While another thread adds or removes its hook, torch may call that one here without keyword arguments.
        if _active.get() is not self or kwargs is None:
            return None
        boundaries = kwargs.get("cu_seqlens")
        if not isinstance(boundaries, Tensor) or len(boundaries) <= 2:
            return None
        self._boundaries = boundaries
        states: Tensor = args[0] if args else kwargs["hidden_states"]  # (S, D), in some towers (1, S, D)
        ends = torch.tensor([0, states.shape[:-1].numel()], device="cpu")
        return args, kwargs | {"cu_seqlens": ends}

    def attend(
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, /, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Run the kernel over all parts of like length at once."""
        if _active.get() is not self or self._boundaries is None:
            return kernel(module, query, key, value, mask, **options)
        boundaries, self._boundaries = self._boundaries, None
        lengths = self._of(boundaries, query)
        if mask is not None or query.shape[:3:2] != (1, lengths.total) or key.shape[2] != lengths.total:
            raise BackboneError(
                f"{type(module).__name__} gives its kernel {tuple(query.shape)} where one sequence of {lengths.total} "
                "was expected, so its windows cannot run together. Load the model with batch_windows=False."
            )
        if lengths.order is not None:
            query, key, value = (tensor[:, :, lengths.order] for tensor in (query, key, value))
        output = by_length(kernel, module, (query, key, value), lengths, options)
        return output if lengths.inverse is None else output[:, lengths.inverse], None

    def _of(self, boundaries: Tensor, like: Tensor) -> _Lengths:
        key = id(boundaries), like.device, like.dtype
        if key not in self._lengths:
            lengths = _Lengths.of(boundaries, like.device)
            mask = None if lengths.mask is None else lengths.mask.to(like.dtype)
            self._lengths[key] = boundaries, replace(lengths, mask=mask)
        return self._lengths[key][1]


def by_length(
    kernel: Kernel,
    module: nn.Module,
    tensors: Sequence[Tensor],
    lengths: _Lengths,
    options: dict[str, Any],
) -> Tensor:
    """Run the kernel over parts `(1, n, S, d)` that are sorted by length; the output is `(1, S, n, d)`."""
    outputs, start = [], 0
    for length, count in lengths.groups:
        end = start + length * count
        batch = [tensor[0, :, start:end].unflatten(1, (count, length)).transpose(0, 1) for tensor in tensors]
        outputs.append(kernel(module, *batch, lengths.mask, **options)[0].flatten(0, 1)[None])
        start = end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
