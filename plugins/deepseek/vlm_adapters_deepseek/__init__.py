"""DeepSeek-VL for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="deepseek_vl",
            target="vlm_adapters_deepseek.adapter:DeepseekVLAdapter",
            extra="deepseek",
            checkpoints=("deepseek-community/deepseek-vl-1.3b-chat",),
            case="vlm_adapters_deepseek.case:DEEPSEEK_VL",
            published="vlm_adapters_deepseek.published:build",
            image_processors=("DeepseekVLProcessor",),
            wrapper="vlm_adapters_deepseek.image_processor:DeepseekVLImageProcessorWrapper",
        ),
        AdapterSpec(
            name="deepseek_vl_hybrid",
            target="vlm_adapters_deepseek.adapter:DeepseekVLHybridAdapter",
            extra="deepseek",
            checkpoints=("deepseek-community/deepseek-vl-7b-chat",),
            case="vlm_adapters_deepseek.case:DEEPSEEK_VL_HYBRID",
            published="vlm_adapters_deepseek.published:build",
        ),
    ]
