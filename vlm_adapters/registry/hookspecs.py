"""The only hook: a plugin implements it and names its module in the entry point group `vlm_adapters`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vlm_adapters.registry.spec import AdapterSpec

PROJECT = "vlm_adapters"
"""The name of the pluggy project, and of the entry point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's implementation of the hook."""


@hookspec
def adapter_specs() -> Iterable[AdapterSpec]:
    """Offer adapters. Called at every listing, so it must not import anything slow.

    Returns:
        One spec per adapter.
    """
    return ()
