"""Fuyu at full size, without weights: one file beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import FuyuImageProcessor, FuyuProcessor, PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_fuyu.adapter import FuyuAdapter


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> FuyuAdapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    images = FuyuImageProcessor(**facts.processor["image_processor"])
    tokenizer = tokenizer or facts.tokenizer(end="</s>", padding="|ENDOFTEXT|")
    return FuyuAdapter(facts.model(), FuyuProcessor(images, tokenizer), checkpoint=facts.name)
