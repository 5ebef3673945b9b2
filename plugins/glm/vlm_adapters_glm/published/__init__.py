"""GLM-V checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_glm.adapter import Glm4vAdapter
from vlm_adapters_glm.tiny import build_processor


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Glm4vAdapter | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    tokenizer = tokenizer or facts.tokenizer(end="<|endoftext|>", padding="<|endoftext|>")
    processor = build_processor(facts.config.model_type, tokenizer, **facts.processor["image_processor"])
    return Glm4vAdapter(facts.model(), processor, checkpoint=checkpoint)
