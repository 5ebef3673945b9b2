"""Attention kernels of transformers under their own names, each with a pass-through in front while someone listens.

A model looks its kernel up by name at every call, and some look at the name itself: families with sparse attention
build another mask for another name. So the name stays, and what stands behind it is replaced for a while by a function
that calls the kernel with the very arguments it got. Outputs are bit-identical; afterwards nothing is left behind.
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
"""What decides which keys a row sees: the kinds read their mask in four ways."""

Kernel = Callable[..., tuple[Tensor, Tensor | None]]

_FLASH = re.compile(r"flash_attention_\d|kernels-community/[\w-]*flash-attn\d?")
_KINDS: dict[str, KernelKind] = {"eager": "eager", "sdpa": "sdpa", "flex_attention": "flex"}


class Listener(Protocol):
    """Sees every call of the kernel, after the kernel itself."""

    def __call__(  # noqa: D102 - the class says it
        self, kind: KernelKind, module: nn.Module, query: Tensor, key: Tensor, mask: Any, options: dict[str, Any], /
    ) -> None: ...


def kernel_kind(name: str | None) -> KernelKind:
    """The kind of a kernel by its name in `config._attn_implementation`.

    Raises:
        CaptureError: Which keys a row of this kernel sees is not known.
    """
    if name in _KINDS:
        return _KINDS[name]
    if name is not None and _FLASH.fullmatch(name):
        return "flash"
    raise CaptureError(
        f"Rows cannot be taken beside the attention kernel {name!r}: which keys it lets a row see is not known. "
        'Load the model with attn_implementation="sdpa", "eager", "flash_attention_2", "flash_attention_3" or '
        '"flex_attention".'
    )


@contextmanager
def listen(modules: Iterable[nn.Module], listener: Listener) -> Iterator[None]:
    """Let a listener see what these attention modules give to their kernels while the block runs.

    Modules of other models pass through unchanged; threads may listen at once, each in blocks of their own.

    Args:
        modules: Attention modules that ask transformers' `AttentionInterface` for their kernel.
        listener: Called from within the block for any module of these kernels, of whatever model.

    Raises:
        CaptureError: A kernel is not known.
    """
    doors: dict[tuple[int, str], tuple[AttentionInterface, str]] = {}
    for module in modules:
        if (interface := _interface_of(module)) is not None:
            name = getattr(module.config, "_attn_implementation", None)
            kernel_kind(name)
            doors[id(interface), cast("str", name)] = (interface, cast("str", name))
    with _lock:
        for interface, name in doors.values():
            if not isinstance(interface.get(name), _PassThrough):
                interface[name] = _PassThrough(name, interface.get(name))
            cast("_PassThrough", interface[name]).listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            for interface, name in doors.values():
                _leave(interface, name, listener)


_lock = threading.Lock()


class _PassThrough:
    """Stands in a kernel's place: calls it, then tells the listeners."""

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


def _leave(interface: AttentionInterface, name: str, listener: Listener) -> None:
    """Take a listener away, and with the last one the pass-through."""
    door = interface.get(name)
    if not isinstance(door, _PassThrough):  # somebody registered another kernel meanwhile
        return
    door.listeners.remove(listener)
    if not door.listeners:
        del interface[name]
        if door.kernel is not None and interface.get(name) is not door.kernel:  # it was this interface's own
            interface[name] = door.kernel


def _interface_of(module: nn.Module) -> AttentionInterface | None:
    """The interface where a module's modelling file looks kernels up: transformers' own, or the file's."""
    for kind in type(module).__mro__:
        found = vars(sys.modules[kind.__module__]).get("ALL_ATTENTION_FUNCTIONS")
        if isinstance(found, AttentionInterface):
            return found
    return None


def _eager_kernel(module: nn.Module) -> Kernel:
    """The eager function is no registry entry: every modelling file has its own."""
    for kind in type(module).__mro__:
        if kernel := vars(sys.modules[kind.__module__]).get("eager_attention_forward"):
            return cast("Kernel", kernel)
    raise CaptureError(
        f'{type(module).__name__} has no eager attention function. Load the model with attn_implementation="sdpa".'
    )
