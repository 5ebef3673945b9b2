"""Aya Vision and Command A Vision for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="aya_vision",
            target="vlm_adapters_cohere.adapter:AyaVisionAdapter",
            extra="cohere",
            checkpoints=("CohereLabs/aya-vision-8b", "CohereLabs/aya-vision-32b"),
            case="vlm_adapters_cohere.case:AYA_VISION",
            published="vlm_adapters_cohere.published:build",
        ),
        AdapterSpec(
            name="cohere2_vision",
            target="vlm_adapters_cohere.adapter:Cohere2VisionAdapter",
            extra="cohere",
            checkpoints=("CohereLabs/command-a-vision-07-2025",),
            case="vlm_adapters_cohere.case:COHERE2_VISION",
            published="vlm_adapters_cohere.published:build",
        ),
    ]
