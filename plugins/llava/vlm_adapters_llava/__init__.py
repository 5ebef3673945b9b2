"""LLaVA and LLaVA-Next for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="llava",
            target="vlm_adapters_llava.adapter:LlavaAdapter",
            extra="llava",
            checkpoints=("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"),
            case="vlm_adapters_llava.case:LLAVA",
            published="vlm_adapters_llava.published:build",
            image_processors=("LlavaProcessor",),
            wrapper="vlm_adapters_llava.image_processor:LlavaImageProcessorWrapper",
        ),
        AdapterSpec(
            name="llava_next",
            target="vlm_adapters_llava.adapter:LlavaNextAdapter",
            extra="llava",
            checkpoints=("llava-hf/llava-v1.6-vicuna-7b-hf", "llava-hf/llava-v1.6-mistral-7b-hf"),
            case="vlm_adapters_llava.case:LLAVA_NEXT",
            published="vlm_adapters_llava.published:build",
        ),
    ]
