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
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_deepseek.adapter import DeepseekVLAdapter, DeepseekVLHybridAdapter
from vlm_adapters_deepseek.tiny import CHAT_TEMPLATE

_CLASSES: dict[str, tuple[type[TransformersBackbone], Any, Any]] = {
    "deepseek_vl": (DeepseekVLAdapter, DeepseekVLProcessor, DeepseekVLImageProcessor),
    "deepseek_vl_hybrid": (DeepseekVLHybridAdapter, DeepseekVLHybridProcessor, DeepseekVLHybridImageProcessor),
}

_END = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the token is written so


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one. Its `image_token` must be set.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    adapter_class, processor_class, image_class = _CLASSES[facts.config.model_type]
    extra = {"image_token": "<image_placeholder>"}
    tokenizer = tokenizer or facts.tokenizer(end=_END, padding=_END, extra_special_tokens=extra)
    processor = processor_class(
        image_class(**facts.processor["image_processor"]),
        tokenizer,
        chat_template=CHAT_TEMPLATE.replace("<end>", _END),
        num_image_tokens=facts.processor["num_image_tokens"],
    )
    return adapter_class(facts.model(), processor, checkpoint=checkpoint)
