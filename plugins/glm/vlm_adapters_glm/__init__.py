"""GLM-4V for vlm-adapters."""

from __future__ import annotations

from vlm_adapters import AdapterSpec, hookimpl

__all__ = ["adapter_specs"]


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapters of this plugin."""
    return [AdapterSpec(name="glm4v", target="vlm_adapters_glm.adapter:Glm4vAdapter")]
