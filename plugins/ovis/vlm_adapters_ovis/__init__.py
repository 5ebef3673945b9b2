"""Ovis 2 for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="ovis2",
            target="vlm_adapters_ovis.adapter:Ovis2Adapter",
            extra="ovis",
            checkpoints=("thisisiron/Ovis2-1B-hf", "thisisiron/Ovis2-2B-hf"),
            case="vlm_adapters_ovis.case:OVIS2",
            published="vlm_adapters_ovis.published:build",
        )
    ]
