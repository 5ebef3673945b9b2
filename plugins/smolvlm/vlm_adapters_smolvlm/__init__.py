"""SmolVLM and Idefics3 for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="idefics3",
            target="vlm_adapters_smolvlm.adapter:SmolVLMAdapter",
            extra="smolvlm",
            checkpoints=(
                "HuggingFaceTB/SmolVLM-256M-Instruct",
                "HuggingFaceTB/SmolVLM-500M-Instruct",
                "HuggingFaceTB/SmolVLM-Instruct",
                "HuggingFaceM4/Idefics3-8B-Llama3",
            ),
            case="vlm_adapters_smolvlm.case:IDEFICS3",
            published="vlm_adapters_smolvlm.published:build",
        ),
        AdapterSpec(
            name="smolvlm",
            target="vlm_adapters_smolvlm.adapter:SmolVLMAdapter",
            extra="smolvlm",
            requires=("num2words",),  # transformers' processor of SmolVLM2 refuses to be built without it
            checkpoints=(
                "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
                "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
                "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            ),
            case="vlm_adapters_smolvlm.case:SMOLVLM",
            published="vlm_adapters_smolvlm.published:build",
        ),
    ]
