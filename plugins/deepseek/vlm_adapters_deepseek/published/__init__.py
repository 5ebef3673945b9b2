"""DeepSeek-VL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    DeepseekVLHybridImageProcessor,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_deepseek.adapter import DeepseekVLAdapter, DeepseekVLHybridAdapter
from vlm_adapters_deepseek.tiny import CHAT_TEMPLATE

_CLASSES: dict[str, tuple[type[TransformersBackbone], Any, Any]] = {
    "deepseek_vl": (DeepseekVLAdapter, DeepseekVLProcessor, DeepseekVLImageProcessor),
    "deepseek_vl_hybrid": (DeepseekVLHybridAdapter, DeepseekVLHybridProcessor, DeepseekVLHybridImageProcessor),
}

_END = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the token is written so


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one. Its `image_token` must be set.
    """
    adapter_class, processor_class, image_class = _CLASSES[facts.config.model_type]
    extra = {"image_token": "<image_placeholder>"}
    tokenizer = tokenizer or facts.tokenizer(end=_END, padding=_END, extra_special_tokens=extra)
    processor = processor_class(
        image_class(**facts.processor["image_processor"]),
        tokenizer,
        chat_template=CHAT_TEMPLATE.replace("<end>", _END),
        num_image_tokens=facts.processor["num_image_tokens"],
    )
    return adapter_class(facts.model(), processor, checkpoint=facts.name)
