"""CogVLM for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [
        AdapterSpec(
            name="cogvlm",
            target="vlm_adapters_cogvlm.adapter:CogVLMAdapter",
            extra="cogvlm",
            checkpoints=(
                "THUDM/cogvlm-chat-hf",
                "THUDM/cogvlm-grounding-generalist-hf",
                "THUDM/cogvlm-grounding-base-hf",
                "THUDM/cogvlm-base-490-hf",
                "THUDM/cogvlm-base-224-hf",
            ),
            case="vlm_adapters_cogvlm.case:COGVLM",
            published="vlm_adapters_cogvlm.published:build",
            architectures=("CogVLMForCausalLM",),
        )
    ]
