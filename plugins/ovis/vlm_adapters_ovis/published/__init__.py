"""Ovis 2 checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Ovis2ImageProcessor, Ovis2Processor, PreTrainedTokenizerBase

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_ovis.adapter import Ovis2Adapter
from vlm_adapters_ovis.tiny import CHAT_TEMPLATE


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    images = Ovis2ImageProcessor(**options.pop("image_processor"))
    tokenizer = tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>")
    return Ovis2Adapter(facts.model(), Ovis2Processor(images, tokenizer, **options), checkpoint=facts.name)
