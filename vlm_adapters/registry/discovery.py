"""Which adapters there are: entry points of installed distributions -> specs -> classes.

Every plugin is loaded alone, so that a broken one is listed with its reason and harms no other. Plugins are asked anew
at every call: what was installed a moment ago is found, and no state is kept.
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
    """What the target of a spec is: a class that makes an adapter from a checkpoint."""

    def from_pretrained(  # noqa: D102 - the class says it
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
    """What the field `published` of a spec names: hub id -> adapter without weights, None for an unknown id."""

    def __call__(self, checkpoint: str, /) -> BackboneAdapter | None: ...  # noqa: D102 - the class says it


@dataclass(frozen=True)
class AdapterEntry:
    """One line of the list of adapters: an adapter, or a plugin that is broken before it offers one.

    Attributes:
        plugin: Name of the entry point.
        distribution: Name of the distribution that installed it; `None` where there is none.
        version: Version of the distribution.
        spec: What the plugin declares; `None` where it did not come so far.
        needs: What must be installed first: `"vlm-adapters[qwen]"`, or modules where the spec names no extra.
        broken: Why it cannot be used, in one line.
    """

    plugin: str
    distribution: str | None = None
    version: str | None = None
    spec: AdapterSpec | None = None
    needs: str | None = None
    broken: str | None = None

    @property
    def name(self) -> str | None:
        """The `model_type` it is for; `None` where a broken plugin did not say."""
        return self.spec.name if self.spec else None

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Hub ids of the checkpoints it is meant for."""
        return self.spec.checkpoints if self.spec else ()

    @property
    def state(self) -> str:
        """`"ready"`, `"needs vlm-adapters[qwen]"` or `"broken: why"`."""
        if self.broken:
            return f"broken: {self.broken}"
        return f"needs {self.needs}" if self.needs else "ready"

    @property
    def origin(self) -> str:
        """Plugin, distribution and version in words, for messages."""
        return f"plugin {self.plugin!r} of {self.distribution or 'no distribution'} {self.version or ''}".rstrip()

    def ready_spec(self) -> AdapterSpec:
        """The spec, once nothing stands in the way of its use.

        Raises:
            PluginError: The plugin is broken, or something must be installed first.
        """
        if self.broken or not self.spec:
            raise PluginError(
                f"The {self.origin} is broken: {self.broken}. Mend or remove it, or leave it out of {PLUGINS_VARIABLE}."
            )
        if self.needs:
            remedy = f'pip install "{self.needs}"' if self.spec.extra else f"install what provides {self.needs}"
            raise PluginError(f"The adapter {self.name!r} ({self.origin}) needs {self.needs}: {remedy}.")
        return self.spec


def list_adapters() -> list[AdapterEntry]:
    """List the adapters of all installed plugins, the broken plugins among them.

    The built-in plugins come first, then the others by distribution and name. Where two offer the same name, the first
    keeps it and the other is broken, whatever was installed first.
    """
    plugins = _installed_plugins()
    wanted = _wanted_plugins()
    if wanted is not None:
        plugins = [(entry, point) for entry, point in plugins if entry.plugin in wanted]
    entries = [offer for entry, point in plugins for offer in _offers(entry, point)]
    unknown = sorted((wanted or set()) - {entry.plugin for entry in entries})
    absent = f"{PLUGINS_VARIABLE} names it, but no installed distribution offers it"
    entries += [AdapterEntry(name, broken=absent) for name in unknown]
    return _with_clashes_broken(entries)


def find_adapter(model_type: str) -> AdapterEntry:
    """Find the adapter for checkpoints of this `model_type`.

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
        PluginError: The entry is not ready, or its target cannot be imported or is no class with `from_pretrained`.
    """
    found, complaint, remedy = _import(entry, "target")
    if not isinstance(found, type):
        raise PluginError(f"{complaint} is no class, but {found!r}. {remedy}")
    if not callable(getattr(found, "from_pretrained", None)):
        raise PluginError(f"{complaint} has no classmethod from_pretrained. {remedy}")
    return cast("AdapterClass", found)


def published_builder(entry: AdapterEntry) -> PublishedBuilder:
    """Import the function that builds published checkpoints without weights; the entry's spec must name one.

    Raises:
        PluginError: The entry is not ready, or what its spec names cannot be imported or called.
    """
    found, complaint, remedy = _import(entry, "published")
    if not callable(found):
        raise PluginError(f"{complaint} is no function, but {found!r}. {remedy}")
    return cast("PublishedBuilder", found)


def _import(entry: AdapterEntry, field: str) -> tuple[object, str, str]:
    """Import what a field of the spec names, "module:name"; also how a complaint about it begins and ends."""
    spec = entry.ready_spec()
    check_transformers()
    place: str = getattr(spec, field)
    module_name, name = place.split(":")
    complaint = f"The {field} {place!r} of the adapter {spec.name!r} ({entry.origin})"
    remedy = f"Update {entry.distribution}, or report this to its author."
    try:
        module = importlib.import_module(module_name)
    except AdapterError:
        raise
    except Exception as error:
        raise PluginError(f"{complaint} cannot be imported: {_reason(error)}. {remedy}") from error
    if not hasattr(module, name):
        raise PluginError(f"{complaint} is not there: {module_name} has no name {name}. {remedy}")
    return getattr(module, name), complaint, remedy


def _installed_plugins() -> list[tuple[AdapterEntry, EntryPoint | None]]:
    """All entry points of the group in the order of precedence; without a point where the metadata is unreadable."""
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
    except Exception as error:  # noqa: BLE001 - whatever is wrong with foreign metadata, the others work on
        folder = getattr(distribution, "_path", "a distribution")
        unreadable = f"the metadata in {folder} cannot be read: {_reason(error)}"
        return [(AdapterEntry("?", str(getattr(folder, "stem", folder)), broken=unreadable), None)]


def _wanted_plugins() -> set[str] | None:
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
    """Load one plugin into a manager of its own, where nothing it does can touch another."""
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
    except ValueError:  # imported already, by something that gave it no spec
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
    told = [str(error)] if isinstance(error, AdapterError) else traceback.format_exception_only(error)
    return " ".join(" ".join(told).split())


def _normalised(distribution: str | None) -> str:
    return re.sub(r"[-_.]+", "-", distribution or "").lower()
