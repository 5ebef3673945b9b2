"""Gemma and PaliGemma for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="gemma3",
            target="vlm_adapters_gemma.adapter:Gemma3Adapter",
            extra="gemma",
            checkpoints=("google/gemma-3-4b-it", "google/gemma-3-12b-it", "google/gemma-3-27b-it"),
            case="vlm_adapters_gemma.case:GEMMA3",
            published="vlm_adapters_gemma.published:build",
        ),
        AdapterSpec(
            name="gemma4",
            target="vlm_adapters_gemma.adapter:Gemma4Adapter",
            extra="gemma",
            checkpoints=("google/gemma-4-E2B-it", "google/gemma-4-26B-A4B-it", "google/gemma-4-31B-it"),
            case="vlm_adapters_gemma.case:GEMMA4",
            published="vlm_adapters_gemma.published:build",
        ),
        AdapterSpec(
            name="gemma4_unified",
            target="vlm_adapters_gemma.adapter:Gemma4Adapter",
            extra="gemma",
            checkpoints=("google/gemma-4-12B-it",),
            case="vlm_adapters_gemma.case:GEMMA4_UNIFIED",
            published="vlm_adapters_gemma.published:build",
        ),
        AdapterSpec(
            name="paligemma",
            target="vlm_adapters_gemma.adapter:PaliGemmaAdapter",
            extra="gemma",
            checkpoints=("google/paligemma2-3b-mix-448", "google/paligemma-3b-mix-224"),
            case="vlm_adapters_gemma.case:PALIGEMMA",
            published="vlm_adapters_gemma.published:build",
        ),
    ]
