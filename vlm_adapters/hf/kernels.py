"""Pass-throughs in front of the attention kernels of transformers, under the kernels' own names.

A model looks its kernel up by name at every call, and some models test the name: families with sparse attention build
another mask for another name. So the name stays, and the function registered under it is replaced temporarily by one
that calls the kernel with exactly the arguments it got. Outputs are bit-identical, and the registry is restored.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    kernels: dict[tuple[int, str], tuple[AttentionInterface, str]] = {}
    for module in modules:
        if (interface := _interface_of(module)) is not None:
            name = getattr(module.config, "_attn_implementation", None)
            kernel_kind(name)
            kernels[id(interface), cast("str", name)] = (interface, cast("str", name))
    with _lock:
        for interface, name in kernels.values():
            if not isinstance(interface.get(name), _PassThrough):
                interface[name] = _PassThrough(name, interface.get(name))
            cast("_PassThrough", interface[name]).listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            for interface, name in kernels.values():
                _remove_listener(interface, name, listener)


_lock = threading.Lock()


class _PassThrough:
    """Replaces a kernel: calls it, then the listeners."""

    def __init__(self, name: str, kernel: Kernel | None) -> None:
        self.kind = kernel_kind(name)
        self.kernel = kernel
        self.listeners: list[Listener] = []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        output = (self.kernel or _eager_kernel(module))(module, query, key, value, attention_mask, **kwargs)
        for listener in tuple(self.listeners):
            listener(self.kind, module, query, key, attention_mask, kwargs)
        return output


def _remove_listener(interface: AttentionInterface, name: str, listener: Listener) -> None:
    """Remove a listener, and with the last one the pass-through."""
    pass_through = interface.get(name)
    if not isinstance(pass_through, _PassThrough):  # another kernel was registered in the meantime
        return
    pass_through.listeners.remove(listener)
    if not pass_through.listeners:
        del interface[name]
        kernel = pass_through.kernel
        if kernel is not None and interface.get(name) is not kernel:  # it was registered in this interface itself
            interface[name] = kernel


def _interface_of(module: nn.Module) -> AttentionInterface | None:
    """The interface in which a module's modelling file looks kernels up: that of transformers, or the file's own."""
    for kind in type(module).__mro__:
        found = vars(sys.modules[kind.__module__]).get("ALL_ATTENTION_FUNCTIONS")
        if isinstance(found, AttentionInterface):
            return found
    return None


def _eager_kernel(module: nn.Module) -> Kernel:
    """The eager function of a module's modelling file; the registry has none."""
    for kind in type(module).__mro__:
        if kernel := vars(sys.modules[kind.__module__]).get("eager_attention_forward"):
            return cast("Kernel", kernel)
    raise CaptureError(
        f'{type(module).__name__} has no eager attention function. Load the model with attn_implementation="sdpa".'
    )
