"""Llama 4 checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Llama4ImageProcessor, Llama4Processor, PreTrainedTokenizerBase

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_llama.adapter import Llama4Adapter


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    options = dict(facts.processor)
    images = Llama4ImageProcessor(**options.pop("image_processor"))
    stand_in = facts.tokenizer(end="<|eot|>", padding="<|finetune_right_pad|>", bos_token="<|begin_of_text|>")
    processor = Llama4Processor(images, tokenizer or stand_in, **options)
    return Llama4Adapter(facts.model(), processor, checkpoint=checkpoint)
