"""Llama 4 for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="llama4",
            target="vlm_adapters_llama.adapter:Llama4Adapter",
            extra="llama",
            checkpoints=("meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"),
            case="vlm_adapters_llama.case:LLAMA4",
            published="vlm_adapters_llama.published:build",
        )
    ]
