"""Fuyu at full size, without weights: one file beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import FuyuImageProcessor, FuyuProcessor, PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_fuyu.adapter import FuyuAdapter


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> FuyuAdapter | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    images = FuyuImageProcessor(**facts.processor["image_processor"])
    tokenizer = tokenizer or facts.tokenizer(end="</s>", padding="|ENDOFTEXT|")
    return FuyuAdapter(facts.model(), FuyuProcessor(images, tokenizer), checkpoint=checkpoint)
