"""MiniCPM-V checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    MiniCPMV4_6ImageProcessor,
    MiniCPMV4_6Processor,
    MiniCPMV4_6VideoProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_minicpm.adapter import MiniCPMVAdapter
from vlm_adapters_minicpm.tiny import CHAT_TEMPLATE, NAMED_TOKENS


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> MiniCPMVAdapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    settings = facts.processor["image_processor"]
    names = {f"{name}_token": token for name, token in NAMED_TOKENS.items()}
    processor = MiniCPMV4_6Processor(
        MiniCPMV4_6ImageProcessor(**settings),
        MiniCPMV4_6VideoProcessor(**settings),
        tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>", extra_special_tokens=names),
        chat_template=CHAT_TEMPLATE,
    )
    return MiniCPMVAdapter(facts.model(), processor, checkpoint=facts.name)
