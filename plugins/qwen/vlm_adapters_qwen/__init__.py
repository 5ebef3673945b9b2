"""The Qwen-VL family for vlm-adapters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal

from vlm_adapters import AdapterSpec, hookimpl

if TYPE_CHECKING:
    from vlm_adapters.hf import wrap_image_processor
    from vlm_adapters_qwen.image_processor import QwenImageProcessorWrapper

__all__ = ["QwenImageProcessorWrapper", "adapter_specs", "wrap_image_processor"]


_MODULES = {
    "QwenImageProcessorWrapper": "vlm_adapters_qwen.image_processor",
    "wrap_image_processor": "vlm_adapters.hf",
}


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin: one class for all, since they differ in the model alone."""
    published = {
        "qwen2_vl": ("Qwen2-VL", ("2B", "7B", "72B")),
        "qwen2_5_vl": ("Qwen2.5-VL", ("3B", "7B", "32B", "72B")),
        "qwen3_vl": ("Qwen3-VL", ("2B", "4B", "8B", "32B")),
        "qwen3_vl_moe": ("Qwen3-VL", ("30B-A3B", "235B-A22B")),
    }
    checkpoints = {
        name: tuple(f"Qwen/{family}-{size}-Instruct" for size in sizes) for name, (family, sizes) in published.items()
    }
    checkpoints |= {
        "qwen3_5": ("Qwen/Qwen3.5-9B",),
        "qwen3_5_moe": ("Qwen/Qwen3.5-35B-A3B", "Qwen/Qwen3.6-35B-A3B"),
        **dict.fromkeys(("qwen2_5_omni", "qwen2_5_omni_thinker"), ("Qwen/Qwen2.5-Omni-7B", "Qwen/Qwen2.5-Omni-3B")),
        **dict.fromkeys(("qwen3_omni_moe", "qwen3_omni_moe_thinker"), ("Qwen/Qwen3-Omni-30B-A3B-Instruct",)),
    }
    targets = {
        **dict.fromkeys(("qwen2_5_omni", "qwen2_5_omni_thinker"), "Qwen2_5OmniAdapter"),
        **dict.fromkeys(("qwen3_omni_moe", "qwen3_omni_moe_thinker"), "Qwen3OmniAdapter"),
    }
    pointing: dict[str, Literal["pixels", "thousandths"]] = {
        "qwen2_5_vl": "pixels",
        "qwen3_vl": "thousandths",
        "qwen3_vl_moe": "thousandths",
    }  # the others are not known to point
    return [
        AdapterSpec(
            name=name,
            target=f"vlm_adapters_qwen.adapter:{targets.get(name, 'QwenAdapter')}",
            extra="qwen",
            requires=("qwen_vl_utils",),
            checkpoints=ids,
            case=f"vlm_adapters_qwen.case:{name.upper()}",
            published="vlm_adapters_qwen.published:build",
            image_processors=("Qwen2VLImageProcessor",),
            wrapper="vlm_adapters_qwen.image_processor:QwenImageProcessorWrapper",
            pointing=pointing.get(name),
        )
        for name, ids in checkpoints.items()
    ]


def __getattr__(name: str) -> object:
    """Import the processor wrapper when it is first used: the list of adapters needs no torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
