"""Pass-throughs in front of the attention kernels of transformers, under the kernels' own names.

A model looks its kernel up by name at every call, and some models test the name: families with sparse attention build
another mask for another name. So the name stays, and the function registered under it is replaced temporarily by one
that calls the kernel with exactly the arguments it got. Outputs are bit-identical, and the registry is restored.
Another function can take the kernel's place in the same way (`vlm_adapters.hf.windows`).
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import unwrap
from typing import Any, Literal, Protocol, cast

from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from vlm_adapters.errors import CaptureError

KernelKind = Literal["eager", "sdpa", "flash", "flex"]
"""Kinds of kernels: each reads its mask in another way, and so decides which keys a row sees."""

Kernel = Callable[..., tuple[Tensor, Tensor | None]]

_FLASH = re.compile(r"flash_attention_\d|kernels-community/[\w-]*flash-attn\d?")
_KINDS: dict[str, KernelKind] = {"eager": "eager", "sdpa": "sdpa", "flex_attention": "flex"}


class Listener(Protocol):
    """Is called with the arguments of every kernel call, after the kernel."""

    def __call__(  # noqa: D102 - described by the class
        self, kind: KernelKind, module: nn.Module, query: Tensor, key: Tensor, mask: Any, options: dict[str, Any], /
    ) -> None: ...


def kernel_kind(name: str | None) -> KernelKind:
    """Look up the kind of a kernel by its name in `config._attn_implementation`.

    Raises:
        CaptureError: It is not known which keys a row of this kernel sees.
    """
    if name in _KINDS:
        return _KINDS[name]
    if name is not None and _FLASH.fullmatch(name):
        return "flash"
    raise CaptureError(
        f"Rows cannot be recorded beside the attention kernel {name!r}, whose rule for masks is not known. "
        'Load the model with attn_implementation="sdpa", "eager", "flash_attention_2", "flash_attention_3" or '
        '"flex_attention".'
    )


class Replacement(Protocol):
    """Is called instead of a kernel, with that kernel and its arguments."""

    def __call__(  # noqa: D102 - described by the class
        self, kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, /, **options: Any
    ) -> tuple[Tensor, Tensor | None]: ...


@contextmanager
def listen(modules: Iterable[nn.Module], listener: Listener) -> Iterator[None]:
    """Call a listener with what these attention modules give to their kernels while the block runs.

    The listener is also called for other modules with the same kernels, those of other models included. Several threads
    may listen at once, each in its own block.

    Args:
        modules: Attention modules that look their kernel up in transformers' `AttentionInterface`.
        listener: The function to call.

    Raises:
        CaptureError: A kernel is unknown.
    """
    with _added(modules, "listeners", listener):
        yield


@contextmanager
def replace(modules: Iterable[nn.Module], replacement: Replacement) -> Iterator[None]:
    """Call a replacement where these attention modules call their kernels while the block runs.

    It is also called for other modules with the same kernels, as a listener is, and passes their calls on.

    Args:
        modules: Attention modules that look their kernel up in transformers' `AttentionInterface`.
        replacement: The function to call.

    Raises:
        CaptureError: A kernel is unknown.
    """
    with _added(modules, "replacements", replacement):
        yield


_lock = threading.Lock()


class _PassThrough:
    """Stands for a kernel: calls it, or what replaces it, then the listeners."""

    def __init__(self, name: str, kernel: Kernel | None) -> None:
        self.kind = kernel_kind(name)
        self.kernel = kernel
        self.listeners: list[Listener] = []
        self.replacements: list[Replacement] = []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        kernel = self.kernel or _eager_kernel(module)
        for replacement in tuple(self.replacements):
            kernel = partial(replacement, kernel)
        output = kernel(module, query, key, value, attention_mask, **kwargs)
        for listener in tuple(self.listeners):
            listener(self.kind, module, query, key, attention_mask, kwargs)
        return output


@contextmanager
def _added(
    modules: Iterable[nn.Module], to: Literal["listeners", "replacements"], function: Listener | Replacement
) -> Iterator[None]:
    """Keep a function in the pass-throughs of these modules' kernels while the block runs."""
    kernels: dict[tuple[int, str], tuple[AttentionInterface, str]] = {}
    for module in modules:
        if (interface := interface_of(module)) is not None:
            name = getattr(module.config, "_attn_implementation", None)
            kernel_kind(name)
            kernels[id(interface), cast("str", name)] = (interface, cast("str", name))
    with _lock:
        for interface, name in kernels.values():
            if not isinstance(interface.get(name), _PassThrough):
                interface[name] = _PassThrough(name, interface.get(name))
            getattr(interface[name], to).append(function)
    try:
        yield
    finally:
        with _lock:
            for interface, name in kernels.values():
                _remove(interface, name, to, function)


def _remove(
    interface: AttentionInterface,
    name: str,
    to: Literal["listeners", "replacements"],
    function: Listener | Replacement,
) -> None:
    """Remove a function, and with the last one the pass-through."""
    pass_through = interface.get(name)
    if not isinstance(pass_through, _PassThrough):  # another kernel was registered in the meantime
        return
    getattr(pass_through, to).remove(function)
    if not (pass_through.listeners or pass_through.replacements):
        del interface[name]
        kernel = pass_through.kernel
        if kernel is not None and interface.get(name) is not kernel:  # it was registered in this interface itself
            interface[name] = kernel


def interface_of(module: nn.Module) -> AttentionInterface | None:
    """The interface in which a module's modelling file looks kernels up: that of transformers, or the file's own."""
    for kind in type(module).__mro__:
        found = vars(sys.modules[kind.__module__]).get("ALL_ATTENTION_FUNCTIONS")
        if isinstance(found, AttentionInterface):
            return found
    return None


def _eager_kernel(module: nn.Module) -> Kernel:
    """The eager function that a module's forward names, else that of its modelling file; the registry has none."""
    for kind in type(module).__mro__:
        functions = vars(sys.modules[kind.__module__])
        forward = vars(kind).get("forward")
        named = unwrap(forward).__code__.co_names if forward else ()
        for name in (*named, "eager_attention_forward"):
            if name.endswith("eager_attention_forward") and (kernel := functions.get(name)):
                return cast("Kernel", kernel)
    raise CaptureError(
        f'{type(module).__name__} has no eager attention function. Load the model with attn_implementation="sdpa".'
    )
