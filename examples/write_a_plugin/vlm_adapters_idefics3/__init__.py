"""SmolVLM and Idefics3 for vlm-adapters."""

from vlm_adapters import AdapterSpec, hookimpl


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapter; torch is imported when it is used."""
    return [
        AdapterSpec(
            name="idefics3",
            target="vlm_adapters_idefics3.adapter:Idefics3Adapter",
            checkpoints=("HuggingFaceTB/SmolVLM-256M-Instruct", "HuggingFaceTB/SmolVLM-Instruct"),
            case="vlm_adapters_idefics3.case:CASE",
        ),
    ]
