"""Finding the case that a plugin declares for an adapter."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import cast

from vlm_adapters.errors import AdapterError, PluginError
from vlm_adapters.registry.discovery import adapter_class, find_adapter
from vlm_adapters.registry.entry import AdapterEntry
from vlm_adapters.registry.plugins import offers, project_plugins
from vlm_adapters.testing.case import AdapterCase


def find_case(name: str) -> AdapterCase:
    """Import the case of the adapter of this name.

    Raises:
        UnknownAdapterError: No working plugin offers the adapter.
        PluginError: Something must be installed first, or the plugin declares no case, or one that is not an
            `AdapterCase`, cannot be loaded, or builds another class than the adapter's target.
    """
    return _case_of(find_adapter(name))


def cases_of_project(folder: Path) -> list[AdapterCase]:
    """Import the cases of all adapters of a plugin's project that need not be installed.

    Args:
        folder: The project, with the plugin's entry points in its `pyproject.toml`. It is put on `sys.path`.

    Raises:
        PluginError: It is not the project of a plugin, or as for `find_case`.
    """
    return [_case_of(entry) for point in project_plugins(folder) for entry in offers(*point)]


def _case_of(entry: AdapterEntry) -> AdapterCase:
    spec = entry.ready_spec()
    if spec.case is None:
        raise PluginError(
            f"The {entry.origin} declares no case for the adapter {spec.name!r}, so it cannot be checked. "
            "Set case='package.module:CASE' in its AdapterSpec, naming an AdapterCase."
        )
    module, attribute = spec.case.split(":")
    complaint = f"The case {spec.case!r} of the adapter {spec.name!r} ({entry.origin})"
    try:
        case = getattr(importlib.import_module(module), attribute, None)
    except AdapterError:
        raise
    except Exception as error:
        raise PluginError(f"{complaint} cannot be imported: {_described(error)}.") from error
    if not isinstance(case, AdapterCase):
        raise PluginError(f"{complaint} is not an AdapterCase: found {case!r}.")
    declared = cast("type[object]", adapter_class(entry))
    try:
        built = case.load()
    except AdapterError:
        raise
    except Exception as error:
        raise PluginError(f"{complaint} cannot be loaded: {_described(error)}.") from error
    if type(built) is not declared:
        raise PluginError(
            f"{complaint} builds a {type(built).__name__}, and users load the target {spec.target!r}. "
            "Build that class in the case."
        )
    return case


def _described(error: Exception) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split()).rstrip(".")
