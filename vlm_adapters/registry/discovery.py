"""Discovery of adapters: entry points of installed distributions -> specs -> classes.

Every plugin is loaded in isolation, so that a broken one is listed with its reason and harms no other. Nothing is
cached: every call finds what is installed at that moment.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from vlm_adapters.errors import AdapterError, PluginError, UnknownAdapterError
from vlm_adapters.limits import shown
from vlm_adapters.registry.entry import PLUGINS_VARIABLE, AdapterEntry, plain, reason_of
from vlm_adapters.registry.plugins import installed_plugins, offers
from vlm_adapters.registry.unsupported import unsupported_family
from vlm_adapters.registry.versions import check_transformers

if TYPE_CHECKING:
    import torch

    from vlm_adapters.backbone.protocol import BackboneAdapter


class AdapterClass(Protocol):
    """The target of a spec: a class that builds an adapter from a checkpoint."""

    def from_pretrained(  # noqa: D102 - described by the class
        self,
        checkpoint: str,
        *,
        device: str | int | torch.device,
        dtype: str | torch.dtype,
        revision: str | None,
        trust_remote_code: bool,
        **options: object,
    ) -> BackboneAdapter: ...


class PublishedBuilder(Protocol):
    """The target of a spec's field `published`: hub id -> adapter without weights, None for an unknown id."""

    def __call__(self, checkpoint: str, /) -> BackboneAdapter | None: ...  # noqa: D102 - described by the class


def list_adapters() -> list[AdapterEntry]:
    """List the adapters of all installed plugins, the broken plugins among them.

    The built-in plugins come first, then the others by distribution and name. If two offer the same name, the first
    keeps it and the other is listed as broken, in whatever order they were installed.

    Examples:
        >>> from vlm_adapters import list_adapters
        >>> [entry.name for entry in list_adapters() if entry.plugin == "deepseek"]
        ['deepseek_vl', 'deepseek_vl_hybrid']
    """
    plugins = installed_plugins()
    allowed = _allowed_plugins()
    if allowed is not None:
        plugins = [(entry, point) for entry, point in plugins if entry.plugin in allowed]
    entries = [offer for entry, point in plugins for offer in offers(entry, point)]
    unknown = sorted((allowed or set()) - {entry.plugin for entry in entries})
    missing = f"{PLUGINS_VARIABLE} names it, but no installed distribution offers it"
    entries += [AdapterEntry(name, broken=missing) for name in unknown]
    return _with_clashes_broken(entries)


def find_adapter(model_type: str) -> AdapterEntry:
    """Find the adapter for checkpoints of a `model_type`.

    Raises:
        UnknownAdapterError: No working plugin offers it.
        PluginError: Something must be installed first.
    """
    entries = list_adapters()
    for entry in entries:
        if entry.name == model_type:
            entry.ready_spec()
            return entry
    refuse_unsupported(model_type)
    raise UnknownAdapterError(_unknown_adapter(model_type, entries))


def refuse_unsupported(name: str) -> None:
    """Refuse a family that no adapter can be built for, unless a plugin offers one.

    Args:
        name: Model type, usual name, or hub id of a checkpoint.

    Raises:
        UnknownAdapterError: It is one of `UNSUPPORTED`, and no plugin offers an adapter for it.
    """
    family = unsupported_family(name)
    if family and not any(unsupported_family(entry.name or "") is family for entry in list_adapters()):
        raise UnknownAdapterError(family.refusal)


def adapter_class(entry: AdapterEntry) -> AdapterClass:
    """Import the class that the entry's spec points to.

    Raises:
        PluginError: The entry is not ready, or its target cannot be imported or is not a class with `from_pretrained`.
    """
    found, complaint, remedy = _import(entry, "target")
    if not isinstance(found, type):
        raise PluginError(f"{complaint} is not a class, but {shown(found)}. {remedy}")
    if not callable(getattr(found, "from_pretrained", None)):
        raise PluginError(f"{complaint} has no classmethod from_pretrained. {remedy}")
    return cast("AdapterClass", found)


def published_builder(entry: AdapterEntry) -> PublishedBuilder:
    """Import the function that builds published checkpoints without weights; the entry's spec must name one.

    Raises:
        PluginError: The entry is not ready, or the function that its spec names cannot be imported or called.
    """
    found, complaint, remedy = _import(entry, "published")
    if not callable(found):
        raise PluginError(f"{complaint} is not a function, but {shown(found)}. {remedy}")
    return cast("PublishedBuilder", found)


def wrapper_class(entry: AdapterEntry) -> Callable[[object], object]:
    """Import the `ImageProcessorWrapper` of a plugin; the entry's spec must name one.

    Raises:
        PluginError: The entry is not ready, or what its spec names cannot be imported or called.
    """
    found, complaint, remedy = _import(entry, "wrapper")
    if not callable(found):
        raise PluginError(f"{complaint} is not a class, but {shown(found)}. {remedy}")
    return found


def _import(entry: AdapterEntry, field: str) -> tuple[object, str, str]:
    """Import what a field of the spec names, "module:name"; also the beginning and end of an error message about it."""
    spec = entry.ready_spec()
    check_transformers()
    address: str = getattr(spec, field)
    module_name, name = address.split(":")
    complaint = f"The {field} {address!r} of the adapter {spec.name!r} ({entry.origin})"
    remedy = f"Update {entry.distribution}, or report this to its author."
    try:
        module = importlib.import_module(module_name)
    except AdapterError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"{complaint} cannot be imported: {reason_of(error)}. {remedy}") from error
    if not hasattr(module, name):
        raise PluginError(f"{complaint} does not exist: {module_name} has no name {name}. {remedy}")
    return getattr(module, name), complaint, remedy


def _allowed_plugins() -> set[str] | None:
    names = os.environ.get(PLUGINS_VARIABLE)
    return None if names is None else {name.strip() for name in names.split(",") if name.strip()}


def _with_clashes_broken(entries: list[AdapterEntry]) -> list[AdapterEntry]:
    holders: dict[str, AdapterEntry] = {}
    settled = []
    for entry in entries:
        holder = holders.setdefault(entry.name, entry) if entry.name else entry
        clash = f"the name {entry.name!r} is held by the {holder.origin}"
        settled.append(entry if holder is entry else replace(entry, broken=clash))
    return settled


def _unknown_adapter(model_type: str, entries: list[AdapterEntry]) -> str:
    known = [entry.name for entry in entries if entry.name and not entry.broken]
    broken = [f"{entry.origin} ({entry.broken})" for entry in entries if entry.broken]
    sentences = [f"No adapter for the model type {shown(model_type)}."]
    if close := difflib.get_close_matches(model_type, known):
        sentences.append(f"Did you mean {' or '.join(close)}?")
    sentences.append(f"Known: {', '.join(known) or 'none'}.")
    if broken:
        sentences.append(f"Broken, and one of them may offer it: {'; '.join(broken)}.")
    if PLUGINS_VARIABLE in os.environ:
        sentences.append(f"{PLUGINS_VARIABLE}={os.environ[PLUGINS_VARIABLE]!r} restricts what loads.")
    sentences.append(f"Install a plugin that offers it, or write one: adapters scaffold {plain(model_type)} --out DIR.")
    return " ".join(sentences)
