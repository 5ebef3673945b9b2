"""LFM2-VL for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapter of this plugin."""
    return [
        AdapterSpec(
            name="lfm2_vl",
            target="vlm_adapters_lfm.adapter:Lfm2VlAdapter",
            extra="lfm",
            checkpoints=("LiquidAI/LFM2-VL-450M", "LiquidAI/LFM2-VL-1.6B", "LiquidAI/LFM2-VL-3B"),
            case="vlm_adapters_lfm.case:LFM2_VL",
            published="vlm_adapters_lfm.published:build",
        )
    ]
