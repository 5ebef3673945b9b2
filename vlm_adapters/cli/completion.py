"""What the Tab key completes: names of models and recipes, without torch."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib.resources import files
from typing import TYPE_CHECKING

from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.registry.discovery import list_adapters

if TYPE_CHECKING:
    from vlm_adapters.registry.entry import AdapterEntry


def model_names(incomplete: str) -> list[str]:
    """The embedded models, and the published checkpoints of the installed plugins."""
    known = [*embedded_checkpoints(), *(name for entry in _entries() for name in entry.checkpoints)]
    return [name for name in known if name.startswith(incomplete)]


def adapter_names(incomplete: str) -> list[str]:
    """The adapters of the installed plugins."""
    return [entry.name for entry in _entries() if entry.name and entry.name.startswith(incomplete)]


def model_and_adapter_names(incomplete: str) -> list[str]:
    """All that `adapters info` takes, but folders."""
    return [*model_names(incomplete), *adapter_names(incomplete)]


def recipe_names(incomplete: str) -> list[str]:
    """The recipes that come with the library."""
    names = (path.name for path in files("vlm_adapters").joinpath("training", "recipes").iterdir())
    recipes = sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
    return [name for name in recipes if name.startswith(incomplete)]


def _entries() -> list[AdapterEntry]:
    with redirect_stdout(sys.stderr):  # a plugin that prints on import must not spoil the names
        return list_adapters()
