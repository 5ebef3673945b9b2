"""VideoLLaMA 3 for vlm-adapters."""

from vlm_adapters import AdapterSpec, hookimpl


@hookimpl
def adapter_specs() -> list[AdapterSpec]:
    """Offer the adapter; torch is imported when it is used."""
    return [
        AdapterSpec(
            name="video_llama_3",
            target="vlm_adapters_video_llama_3.adapter:VideoLlama3Adapter",
            checkpoints=("lkhl/VideoLLaMA3-2B-Image-HF", "lkhl/VideoLLaMA3-7B-Image-HF"),
            case="vlm_adapters_video_llama_3.case:CASE",
        ),
    ]
