"""LFM2-VL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import Lfm2VlImageProcessor, Lfm2VlProcessor, PreTrainedTokenizerBase

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_lfm.adapter import Lfm2VlAdapter
from vlm_adapters_lfm.tiny import CHAT_TEMPLATE


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    images = Lfm2VlImageProcessor(**options.pop("image_processor"))
    processor = Lfm2VlProcessor(images, tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|pad|>"), **options)
    return Lfm2VlAdapter(facts.model(), processor, checkpoint=checkpoint)
