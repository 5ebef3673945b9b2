"""Molmo 2 checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor, PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_molmo.adapter import Molmo2Adapter
from vlm_adapters_molmo.tiny import CHAT_TEMPLATE


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> Molmo2Adapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    images = Molmo2ImageProcessor(**options.pop("image_processor"))
    stand_in = facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>", bos_token="<|im_end|>")
    processor = Molmo2Processor(images, Molmo2VideoProcessor(), tokenizer or stand_in, **options)
    return Molmo2Adapter(facts.model(), processor, checkpoint=facts.name)
