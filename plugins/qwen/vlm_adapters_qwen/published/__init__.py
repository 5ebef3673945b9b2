"""Qwen-VL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2VLProcessor,
    Qwen3OmniMoeProcessor,
    Qwen3VLProcessor,
)

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_qwen.adapter import Qwen2_5OmniAdapter, Qwen3OmniAdapter, QwenAdapter
from vlm_adapters_qwen.tiny import OMNI_TOKENS, build_omni_processor, build_processor

_PROCESSORS = {
    "qwen2_vl": Qwen2VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
    "qwen3_vl_moe": Qwen3VLProcessor,
    "qwen3_5": Qwen3VLProcessor,
    "qwen3_5_moe": Qwen3VLProcessor,
}
_THINKERS: dict[str, tuple[type[QwenAdapter], type]] = {
    "qwen2_5_omni_thinker": (Qwen2_5OmniAdapter, Qwen2_5OmniProcessor),
    "qwen3_omni_moe_thinker": (Qwen3OmniAdapter, Qwen3OmniMoeProcessor),
}


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> QwenAdapter:
    """Build the adapter of a published checkpoint on the meta device; of an Omni checkpoint its thinker.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    kind, images = facts.config.model_type, facts.processor["image_processor"]
    names = {"extra_special_tokens": dict(OMNI_TOKENS[kind])} if kind in OMNI_TOKENS else {}
    tokenizer = tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>", **names)
    if kind in _THINKERS:
        adapter_class, processor_class = _THINKERS[kind]
        processor = build_omni_processor(kind, processor_class, tokenizer, **images)
        return adapter_class(facts.model(), processor, checkpoint=facts.name)
    processor = build_processor(_PROCESSORS[kind], tokenizer, **images)
    return QwenAdapter(facts.model(), processor, checkpoint=facts.name)
