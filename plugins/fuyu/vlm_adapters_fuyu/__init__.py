"""Fuyu for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapter of this plugin."""
    return [
        AdapterSpec(
            name="fuyu",
            target="vlm_adapters_fuyu.adapter:FuyuAdapter",
            extra="fuyu",
            checkpoints=("adept/fuyu-8b",),
            case="vlm_adapters_fuyu.case:FUYU",
            published="vlm_adapters_fuyu.published:build",
            image_processors=("FuyuProcessor", "FuyuImageProcessor"),
            wrapper="vlm_adapters_fuyu.image_processor:FuyuImageProcessorWrapper",
        )
    ]
