"""InternVL for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="internvl",
            target="vlm_adapters_internvl.adapter:InternVLAdapter",
            extra="internvl",
            checkpoints=("OpenGVLab/InternVL3-1B-hf", "OpenGVLab/InternVL3-8B-hf"),
            case="vlm_adapters_internvl.case:INTERNVL",
            published="vlm_adapters_internvl.published:build",
        )
    ]
