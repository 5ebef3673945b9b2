"""The installed plugins: entry points of distributions, each loaded so that it can do no harm to the others.

Whatever a plugin does while it is found, imported, asked and checked is the reason why it is broken. Out of reach are
plugins that never return, that end the process without an exception, or that change what other modules hold.
"""

from __future__ import annotations

import opcode
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from importlib.metadata import Distribution, DistributionFinder, EntryPoint
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pluggy

from vlm_adapters.errors import PluginError
from vlm_adapters.limits import shown
from vlm_adapters.registry import hookspecs
from vlm_adapters.registry.entry import AdapterEntry, plain, reason_of
from vlm_adapters.registry.spec import AdapterSpec
from vlm_adapters.registry.versions import is_older

_Point = tuple[AdapterEntry, EntryPoint | None]
_GROUP = hookspecs.PROJECT
_BUILT_IN = "vlm-adapters"
_MOST_SPECS = 1000
_KEPT = frozenset(sys.stdlib_module_names) - {"distutils"} | {"pluggy"}
"""Packages whose modules a plugin must not remove, beside the library's; setuptools removes distutils."""


def installed_plugins() -> list[_Point]:
    """All entry points of the group in the order of precedence; None in place of one that cannot be read."""
    found: dict[str, list[_Point]] = {}
    for distribution in _distributions():
        points = [distribution] if isinstance(distribution, tuple) else _entry_points(distribution)
        if points:
            # the first on the path is the one that Python imports; a later one of the same name is hidden by it
            found.setdefault(_normalised(points[0][0].distribution), points)
    order = sorted(found, key=lambda name: (name != _BUILT_IN, name))
    return [point for name in order for point in sorted(found[name], key=lambda point: point[0].plugin)]


def project_plugins(folder: Path) -> list[_Point]:
    """The entry points of a plugin's project that need not be installed; its modules become importable.

    Args:
        folder: The project, with a `pyproject.toml`.

    Raises:
        PluginError: It has none, or one without entry points of the group.
    """
    path = folder / "pyproject.toml"
    remedy = f"Give the folder of a plugin's project, whose pyproject.toml has [project.entry-points.{_GROUP}]."
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        points = dict(project.get("entry-points", {}).get(_GROUP, {}))
    except (OSError, UnicodeDecodeError, ValueError, AttributeError, TypeError) as error:
        raise PluginError(f"{path} cannot be read: {reason_of(error)}. {remedy}") from error
    if not points:
        raise PluginError(f"{path} has no entry points of a plugin. {remedy}")
    sys.path[:0] = [str(place.resolve()) for place in (folder, folder / "src") if str(place.resolve()) not in sys.path]
    name, version = plain(str(project.get("name", folder.name))), plain(str(project.get("version", "")))
    return [
        (AdapterEntry(plain(str(plugin)), name, version), EntryPoint(str(plugin), str(value), _GROUP))
        for plugin, value in points.items()
    ]


def offers(entry: AdapterEntry, point: EntryPoint | None) -> list[AdapterEntry]:
    """The adapters that a plugin offers; one broken entry if it does anything but offer them."""
    if point is None:
        return [entry]
    modules = {name: module for name, module in sys.modules.items() if _is_kept(name)}
    try:
        found = [replace(entry, spec=spec, needs=_needs(spec, entry.distribution)) for spec in _specs(point)]
    except BaseException as error:  # a plugin that calls sys.exit must not end the program
        if isinstance(error, KeyboardInterrupt) and not _is_raised_by_code(error):
            raise
        found = [replace(entry, broken=reason_of(error))]
    if removed := [name for name in modules if sys.modules.get(name) is None]:
        sys.modules.update({name: modules[name] for name in removed})
        return [replace(entry, broken=f"it removes modules of others from sys.modules, such as {removed[0]}")]
    return found


def _is_kept(module: str) -> bool:
    package = module.partition(".")[0]
    return package in _KEPT or package.startswith("vlm_adapters")


def _distributions() -> Iterator[Distribution | _Point]:
    """All installed distributions, and a broken entry for every finder that cannot list its own."""
    for finder in list(sys.meta_path):
        try:
            find = getattr(finder, "find_distributions", None)
            yield from list(find(DistributionFinder.Context())) if find else ()
        except Exception as error:  # noqa: BLE001 - a finder is code of whoever installed it
            name = plain(getattr(finder, "__name__", type(finder).__name__))
            yield AdapterEntry("?", name, broken=f"this finder cannot list its distributions: {reason_of(error)}"), None


def _entry_points(distribution: Distribution) -> list[_Point]:
    try:
        text = distribution.read_text("entry_points.txt") or ""
        # parsing the metadata of every distribution would take most of the time of a listing
        if f"[{_GROUP}]" not in text:
            return []
        name, version = plain(distribution.metadata["Name"]), plain(distribution.version)
        points = distribution.entry_points.select(group=_GROUP)
        return [(AdapterEntry(plain(point.name), name, version), point) for point in points]
    except Exception as error:  # noqa: BLE001 - whatever is wrong with foreign metadata, the other plugins still work
        folder = getattr(distribution, "_path", "a distribution")
        unreadable = f"the metadata in {folder} cannot be read: {reason_of(error)}"
        return [(AdapterEntry("?", plain(str(getattr(folder, "stem", folder))), broken=plain(unreadable)), None)]


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
            raise PluginError(f"adapter_specs() returns {shown(offer)}; it must return an iterable of AdapterSpec")
        for spec in islice(offer, _MOST_SPECS + 1):
            if not isinstance(spec, AdapterSpec):
                raise PluginError(f"adapter_specs() offers {shown(spec)}, a {type(spec).__name__}, not an AdapterSpec")
            # anew, of plain values: a subclass may have attributes that raise, and texts that are none
            specs.append(
                AdapterSpec(**{field.name: _plain_value(getattr(spec, field.name)) for field in fields(AdapterSpec)})
            )
    if len(specs) > _MOST_SPECS:
        raise PluginError(f"adapter_specs() offers more than {_MOST_SPECS} adapters")
    if not specs:
        raise PluginError(f"{point.value} offers no adapters; mark its function adapter_specs() with @hookimpl")
    return specs


def _plain_value(value: Any) -> Any:
    """A field of a spec: texts and tuples as such, and not as subclasses of them."""
    if isinstance(value, tuple):
        return tuple(_plain_value(each) for each in tuple.__iter__(value))
    return str.__str__(value) if isinstance(value, str) else value


def _needs(spec: AdapterSpec, distribution: str | None) -> str | None:
    if spec.min_transformers and is_older("transformers", spec.min_transformers):
        return f"transformers>={spec.min_transformers}"
    missing = [module for module in spec.requires if not _is_importable(module)]
    if not missing:
        return None
    return f"{distribution}[{spec.extra}]" if spec.extra else ", ".join(missing)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # a module that is already imported may have no spec
        return True
    except Exception as error:
        raise PluginError(f"whether {module} is installed cannot be found out: {reason_of(error)}") from error


def _is_raised_by_code(error: KeyboardInterrupt) -> bool:
    """Whether a `raise` made an interrupt, and not somebody at the keyboard; the command line has kinds of its own."""
    if type(error) is not KeyboardInterrupt:
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and opcode.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _normalised(distribution: str | None) -> str:
    return re.sub(r"[-_.]+", "-", distribution or "").lower()
