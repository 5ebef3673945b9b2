"""LLaVA, LLaVA-Next, LLaVA-OneVision, Mistral 3 and Pixtral for vlm-adapters."""

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
            checkpoints=("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf", "mistral-community/pixtral-12b"),
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
        AdapterSpec(
            name="llava_onevision",
            target="vlm_adapters_llava.onevision:LlavaOnevisionAdapter",
            extra="llava",
            checkpoints=(
                "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
                "llava-hf/llava-onevision-qwen2-7b-ov-hf",
                "llava-hf/llava-onevision-qwen2-72b-ov-hf",
            ),
            case="vlm_adapters_llava.case_onevision:LLAVA_ONEVISION",
            published="vlm_adapters_llava.published:build",
        ),
        AdapterSpec(
            name="mistral3",
            target="vlm_adapters_llava.native_rows:Mistral3Adapter",
            extra="llava",
            checkpoints=(
                "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
                "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
            ),
            case="vlm_adapters_llava.case_native_rows:MISTRAL3",
            published="vlm_adapters_llava.published:build",
        ),
    ]
