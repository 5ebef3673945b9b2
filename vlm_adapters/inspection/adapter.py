"""A report on an adapter by its name, without a checkpoint and without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.registry.checkpoints import find_checkpoint
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.entry import AdapterEntry


@dataclass(frozen=True)
class AdapterReport:
    """An adapter that a plugin offers.

    Attributes:
        name: The `model_type` of the adapter.
        plugin: Name of the plugin's entry point.
        distribution: Distribution that installed the plugin.
        version: Version of the distribution.
        state: `"ready"`, `"needs WHAT"` or `"broken: WHY"`.
        target: `"module:Class"` of the adapter.
        checkpoints: Hub ids of the checkpoints that the adapter supports.
        embedded: Embedded checkpoints that the adapter loads.
    """

    name: str
    plugin: str
    distribution: str | None
    version: str | None
    state: str
    target: str | None
    checkpoints: tuple[str, ...]
    embedded: tuple[str, ...]


def describe_entry(name: str) -> AdapterReport | None:
    """Report on the adapter of this name.

    Returns:
        None if the name is that of an embedded checkpoint or a directory, or if no plugin offers such an adapter.
    """
    if name in embedded_checkpoints() or os.path.isdir(name):  # noqa: PTH112 - false for names that no folder can have, where Path.is_dir raises
        return None
    entries = [entry for entry in list_adapters() if entry.name == name]
    return _report(min(entries, key=lambda entry: entry.broken is not None), name) if entries else None


def _report(entry: AdapterEntry, name: str) -> AdapterReport:
    return AdapterReport(
        name=name,
        plugin=entry.plugin,
        distribution=entry.distribution,
        version=entry.version,
        state=entry.state,
        target=entry.spec.target if entry.spec else None,
        checkpoints=entry.checkpoints,
        embedded=tuple(alias for alias in embedded_checkpoints() if find_checkpoint(alias).model_type == name),
    )
