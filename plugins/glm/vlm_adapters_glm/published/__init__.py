"""GLM-V checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_glm.adapter import Glm4vAdapter
from vlm_adapters_glm.tiny import build_processor

_PROCESSORS = {"Glm4vProcessor": "glm4v", "Glm46VProcessor": "glm46v"}
"""Model types whose processor `build_processor` builds, by the class that the checkpoint's files name."""


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> Glm4vAdapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    tokenizer = tokenizer or facts.tokenizer(end="<|endoftext|>", padding="<|endoftext|>")
    like = _PROCESSORS[facts.processor.get("processor_class", "Glm4vProcessor")]
    processor = build_processor(like, tokenizer, **facts.processor["image_processor"])
    return Glm4vAdapter(facts.model(), processor, checkpoint=facts.name)
