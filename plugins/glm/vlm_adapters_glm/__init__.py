"""GLM-V for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin: one class for all, since they differ in the model alone."""
    checkpoints = {
        "glm4v": ("zai-org/GLM-4.1V-9B-Thinking", "zai-org/GLM-4.1V-9B-Base", "zai-org/GLM-4.6V-Flash"),
        "glm4v_moe": ("zai-org/GLM-4.5V", "zai-org/GLM-4.6V"),
        "glm46v": (),  # GLM-4.6V's files name the types above; its processor is this one's
    }
    return [
        AdapterSpec(
            name=name,
            target="vlm_adapters_glm.adapter:Glm4vAdapter",
            extra="glm",
            checkpoints=ids,
            case=f"vlm_adapters_glm.case:{name.upper()}",
            published="vlm_adapters_glm.published:build",
        )
        for name, ids in checkpoints.items()
    ]
