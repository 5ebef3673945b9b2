"""LLaVA and LLaVA-Next checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_llava.adapter import LlavaAdapter, LlavaNextAdapter
from vlm_adapters_llava.tiny import CHAT_TEMPLATE

_CLASSES: dict[str, tuple[type[TransformersBackbone], Any, Any]] = {
    "llava": (LlavaAdapter, LlavaProcessor, CLIPImageProcessor),
    "llava_next": (LlavaNextAdapter, LlavaNextProcessor, LlavaNextImageProcessor),
}


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    adapter_class, processor_class, image_class = _CLASSES[facts.config.model_type]
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    images = image_class(**options.pop("image_processor"))
    processor = processor_class(images, tokenizer or facts.tokenizer(end="</s>", padding="<pad>"), **options)
    return adapter_class(facts.model(), processor, checkpoint=checkpoint)
