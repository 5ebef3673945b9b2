"""Qwen-VL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLProcessor, Qwen2VLProcessor, Qwen3VLProcessor

from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_qwen.adapter import QwenAdapter
from vlm_adapters_qwen.tiny import build_processor

_PROCESSORS = {
    "qwen2_vl": Qwen2VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
    "qwen3_5_moe": Qwen3VLProcessor,
}


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> QwenAdapter | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    tokenizer = tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>")
    processor = build_processor(_PROCESSORS[facts.config.model_type], tokenizer, **facts.processor["image_processor"])
    return QwenAdapter(facts.model(), processor, checkpoint=checkpoint)
