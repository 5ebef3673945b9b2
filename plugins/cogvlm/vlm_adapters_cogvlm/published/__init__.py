"""CogVLM checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_cogvlm.adapter import CogVLMAdapter
from vlm_adapters_cogvlm.processor import CogVLMProcessor


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> CogVLMAdapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    begin = {"bos_token": "<s>", "unk_token": "<unk>", "add_bos_token": True}
    tokenizer = tokenizer or facts.tokenizer(end="</s>", padding="<unk>", **begin)
    config: Any = facts.config
    return CogVLMAdapter(facts.model(), CogVLMProcessor.of(config, tokenizer), checkpoint=facts.name)
