"""LFM2-VL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Lfm2VlImageProcessor, Lfm2VlProcessor, PreTrainedTokenizerBase

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_lfm.adapter import Lfm2VlAdapter
from vlm_adapters_lfm.tiny import CHAT_TEMPLATE


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    images = Lfm2VlImageProcessor(**options.pop("image_processor"))
    processor = Lfm2VlProcessor(images, tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|pad|>"), **options)
    return Lfm2VlAdapter(facts.model(), processor, checkpoint=facts.name)
