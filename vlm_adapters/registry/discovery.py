"""Discovery of adapters: entry points of installed distributions -> specs -> classes.

Every plugin is loaded in isolation, so that a broken one is listed with its reason and harms no other. Nothing is
cached: every call finds what is installed at that moment.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast

import pluggy

from vlm_adapters.errors import AdapterError, PluginError, UnknownAdapterError
from vlm_adapters.registry import hookspecs
from vlm_adapters.registry.spec import AdapterSpec
from vlm_adapters.registry.unsupported import UNSUPPORTED
from vlm_adapters.registry.versions import check_transformers

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    import torch

    from vlm_adapters.backbone.protocol import BackboneAdapter

PLUGINS_VARIABLE = "VLM_ADAPTERS_PLUGINS"
"""Environment variable that restricts what loads: names of entry points, separated by commas; empty for none."""

_BUILT_IN = "vlm-adapters"


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


@dataclass(frozen=True)
class AdapterEntry:
    """One line of the list of adapters: an adapter, or a plugin that is broken before it offers one.

    Attributes:
        plugin: Name of the entry point.
        distribution: Name of the distribution that installed it; `None` if it is not installed.
        version: Version of the distribution.
        spec: The plugin's declaration; `None` if the plugin broke before it declared one.
        needs: What must be installed first: `"vlm-adapters[qwen]"`, or modules if the spec names no extra.
        broken: Reason why it cannot be used, in one line.
    """

    plugin: str
    distribution: str | None = None
    version: str | None = None
    spec: AdapterSpec | None = None
    needs: str | None = None
    broken: str | None = None

    @property
    def name(self) -> str | None:
        """The `model_type` of the adapter; `None` for a plugin that broke before it declared one."""
        return self.spec.name if self.spec else None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Hub ids of the checkpoints that the adapter supports."""
        return self.spec.checkpoints if self.spec else ()

    @property
    def state(self) -> str:
        """`"ready"`, `"needs vlm-adapters[qwen]"` or `"broken: why"`."""
        if self.broken:
            return f"broken: {self.broken}"
        return f"needs {self.needs}" if self.needs else "ready"

    @property
    def origin(self) -> str:
        """Plugin, distribution and version as text, for messages."""
        return f"plugin {self.plugin!r} of {self.distribution or 'no distribution'} {self.version or ''}".rstrip()

    def ready_spec(self) -> AdapterSpec:
        """The spec, if the adapter can be used.

        Raises:
            PluginError: The plugin is broken, or something must be installed first.
        """
        if self.broken or not self.spec:
            raise PluginError(
                f"The {self.origin} is broken: {self.broken}. Fix or remove it, or leave it out of {PLUGINS_VARIABLE}."
            )
        if self.needs:
            remedy = f'pip install "{self.needs}"' if self.spec.extra else f"install what provides {self.needs}"
            raise PluginError(f"The adapter {self.name!r} ({self.origin}) needs {self.needs}: {remedy}.")
        return self.spec


def list_adapters() -> list[AdapterEntry]:
    """List the adapters of all installed plugins, the broken plugins among them.

    The built-in plugins come first, then the others by distribution and name. If two offer the same name, the first
    keeps it and the other is listed as broken, in whatever order they were installed.

    Example:
        >>> from vlm_adapters import list_adapters
        >>> [entry.name for entry in list_adapters() if entry.plugin == "llava"]
        ['llava', 'llava_next']
    """
    plugins = _installed_plugins()
    allowed = _allowed_plugins()
    if allowed is not None:
        plugins = [(entry, point) for entry, point in plugins if entry.plugin in allowed]
    entries = [offer for entry, point in plugins for offer in _offers(entry, point)]
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
    raise UnknownAdapterError(_unknown_adapter(model_type, entries))


def adapter_class(entry: AdapterEntry) -> AdapterClass:
    """Import the class that the entry's spec points to.

    Raises:
        PluginError: The entry is not ready, or its target cannot be imported or is not a class with `from_pretrained`.
    """
    found, complaint, remedy = _import(entry, "target")
    if not isinstance(found, type):
        raise PluginError(f"{complaint} is not a class, but {found!r}. {remedy}")
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
        raise PluginError(f"{complaint} is not a function, but {found!r}. {remedy}")
    return cast("PublishedBuilder", found)


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
    except Exception as error:
        raise PluginError(f"{complaint} cannot be imported: {_reason(error)}. {remedy}") from error
    if not hasattr(module, name):
        raise PluginError(f"{complaint} does not exist: {module_name} has no name {name}. {remedy}")
    return getattr(module, name), complaint, remedy


def _installed_plugins() -> list[tuple[AdapterEntry, EntryPoint | None]]:
    """All entry points of the group in the order of precedence; None in place of one with unreadable metadata."""
    found: dict[str, list[tuple[AdapterEntry, EntryPoint | None]]] = {}
    for distribution in distributions():
        if points := _entry_points(distribution):
            # the first on the path is the one that Python imports; a later one of the same name is hidden by it
            found.setdefault(_normalised(points[0][0].distribution), points)
    order = sorted(found, key=lambda name: (name != _BUILT_IN, name))
    return [point for name in order for point in sorted(found[name], key=lambda point: point[0].plugin)]


def _entry_points(distribution: Distribution) -> list[tuple[AdapterEntry, EntryPoint | None]]:
    try:
        text = distribution.read_text("entry_points.txt") or ""
        # parsing the metadata of every distribution would take most of the time of a listing
        if f"[{hookspecs.PROJECT}]" not in text:
            return []
        name, version = distribution.metadata["Name"], distribution.version
        points = distribution.entry_points.select(group=hookspecs.PROJECT)
        return [(AdapterEntry(point.name, name, version), point) for point in points]
    except Exception as error:  # noqa: BLE001 - whatever is wrong with foreign metadata, the other plugins still work
        folder = getattr(distribution, "_path", "a distribution")
        unreadable = f"the metadata in {folder} cannot be read: {_reason(error)}"
        return [(AdapterEntry("?", str(getattr(folder, "stem", folder)), broken=unreadable), None)]


def _allowed_plugins() -> set[str] | None:
    names = os.environ.get(PLUGINS_VARIABLE)
    return None if names is None else {name.strip() for name in names.split(",") if name.strip()}


def _offers(entry: AdapterEntry, point: EntryPoint | None) -> list[AdapterEntry]:
    if point is None:
        return [entry]
    try:
        specs = _specs(point)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin that calls sys.exit must not end the program
        return [replace(entry, broken=_reason(error))]
    return [replace(entry, spec=spec, needs=_needs(spec, entry.distribution)) for spec in specs]


def _specs(point: EntryPoint) -> list[AdapterSpec]:
    """Load one plugin into its own manager, so that it cannot affect others."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = point.load()
    manager.register(plugin, point.name)
    hooks = manager.get_hookcallers(plugin) or []
    if unknown := [hook.name for hook in hooks if not hook.has_spec()]:
        raise PluginError(f"it implements the unknown hook {', '.join(unknown)}; the one hook is adapter_specs")
    specs: list[AdapterSpec] = []
    for offer in manager.hook.adapter_specs():
        if not isinstance(offer, Iterable):
            raise PluginError(f"adapter_specs() returns {offer!r}; it must return an iterable of AdapterSpec")
        for spec in offer:
            if not isinstance(spec, AdapterSpec):
                raise PluginError(f"adapter_specs() offers {spec!r}, a {type(spec).__name__}, not an AdapterSpec")
            specs.append(spec)
    if not specs:
        raise PluginError(f"{point.value} offers no adapters; mark its function adapter_specs() with @hookimpl")
    return specs


def _needs(spec: AdapterSpec, distribution: str | None) -> str | None:
    missing = [module for module in spec.requires if not _is_importable(module)]
    if not missing:
        return None
    return f"{distribution}[{spec.extra}]" if spec.extra else ", ".join(missing)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # a module that is already imported may have no spec
        return True


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
    sentences = [f"No adapter for the model type {model_type!r}."]
    sentences += [f"It is {family.reason}." for family in UNSUPPORTED if family.name == model_type]
    if close := difflib.get_close_matches(model_type, known):
        sentences.append(f"Did you mean {' or '.join(close)}?")
    sentences.append(f"Known: {', '.join(known) or 'none'}.")
    if broken:
        sentences.append(f"Broken, and one of them may offer it: {'; '.join(broken)}.")
    if PLUGINS_VARIABLE in os.environ:
        sentences.append(f"{PLUGINS_VARIABLE}={os.environ[PLUGINS_VARIABLE]!r} restricts what loads.")
    sentences.append(f"Install a plugin that offers it, or write one: adapters scaffold {model_type} --out DIR.")
    return " ".join(sentences)


def _reason(error: BaseException) -> str:
    lines = [str(error)] if isinstance(error, AdapterError) else traceback.format_exception_only(error)
    return " ".join(" ".join(lines).split())


def _normalised(distribution: str | None) -> str:
    return re.sub(r"[-_.]+", "-", distribution or "").lower()
