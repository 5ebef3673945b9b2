"""The Qwen-VL family for vlm-adapters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vlm_adapters import AdapterSpec, hookimpl

if TYPE_CHECKING:
    from vlm_adapters_qwen.unified_processor import QwenImageProcessorWrapper, wrap_image_processor

__all__ = ["QwenImageProcessorWrapper", "adapter_specs", "wrap_image_processor"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="qwen2_5_vl",
            target="vlm_adapters_qwen.adapter:QwenAdapter",
            extra="qwen",
            requires=("qwen_vl_utils",),
            checkpoints=tuple(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")),
            case="vlm_adapters_qwen.case:QWEN2_5_VL",
        )
    ]


def __getattr__(name: str) -> object:
    """Import the processor wrapper when it is first used: the list of adapters needs no torch."""
    if name in {"QwenImageProcessorWrapper", "wrap_image_processor"}:
        return getattr(import_module(f"{__name__}.unified_processor"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
