"""SmolVLM checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerBase,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_smolvlm.adapter import SmolVLMAdapter
from vlm_adapters_smolvlm.tiny import CHAT_TEMPLATE


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    sizes = options.pop("image_processor")
    tokenizer = tokenizer or facts.tokenizer(end="<end_of_utterance>", padding="<|im_end|>")
    processor: Idefics3Processor | SmolVLMProcessor
    if facts.config.model_type == "smolvlm":
        videos = SmolVLMVideoProcessor(**sizes)
        processor = SmolVLMProcessor(SmolVLMImageProcessor(**sizes), tokenizer, videos, **options)
    else:
        processor = Idefics3Processor(Idefics3ImageProcessor(**sizes), tokenizer, **options)
    return SmolVLMAdapter(facts.model(), processor, checkpoint=facts.name)
