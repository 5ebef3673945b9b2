"""Molmo 2 for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="molmo2",
            target="vlm_adapters_molmo.adapter:Molmo2Adapter",
            extra="molmo",
            checkpoints=("allenai/Molmo2-4B", "allenai/Molmo2-8B", "allenai/Molmo2-O-7B"),
            case="vlm_adapters_molmo.case:MOLMO2",
            published="vlm_adapters_molmo.published:build",
            min_transformers="5.20",
        )
    ]
