"""CogVLM checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_cogvlm.adapter import CogVLMAdapter
from vlm_adapters_cogvlm.processor import CogVLMProcessor


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> CogVLMAdapter | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    begin = {"bos_token": "<s>", "unk_token": "<unk>", "add_bos_token": True}
    tokenizer = tokenizer or facts.tokenizer(end="</s>", padding="<unk>", **begin)
    config: Any = facts.config
    return CogVLMAdapter(facts.model(), CogVLMProcessor.of(config, tokenizer), checkpoint=checkpoint)
