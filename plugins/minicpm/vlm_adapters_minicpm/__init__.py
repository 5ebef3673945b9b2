"""MiniCPM-V for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="minicpmv4_6",
            target="vlm_adapters_minicpm.adapter:MiniCPMVAdapter",
            extra="minicpm",
            checkpoints=("openbmb/MiniCPM-V-4.6",),
            case="vlm_adapters_minicpm.case:MINICPM_4_6",
            published="vlm_adapters_minicpm.published:build",
            min_transformers="5.19",
        ),
        AdapterSpec(
            name="minicpmv4_7",
            target="vlm_adapters_minicpm.adapter:MiniCPMVAdapter",
            extra="minicpm",
            checkpoints=("openbmb/MiniCPM-V-4.7-1B",),
            case="vlm_adapters_minicpm.case:MINICPM_4_7",
            min_transformers="5.18",
        ),
    ]
