"""Llama 4 checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Llama4ImageProcessor, Llama4Processor, PreTrainedTokenizerBase

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_llama.adapter import Llama4Adapter


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = dict(facts.processor)
    images = Llama4ImageProcessor(**options.pop("image_processor"))
    stand_in = facts.tokenizer(end="<|eot|>", padding="<|finetune_right_pad|>", bos_token="<|begin_of_text|>")
    processor = Llama4Processor(images, tokenizer or stand_in, **options)
    return Llama4Adapter(facts.model(), processor, checkpoint=facts.name)
