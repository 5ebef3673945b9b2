"""Checkpoints of the plugin at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_llava import tiny, tiny_native_rows, tiny_onevision
from vlm_adapters_llava.adapter import LlavaAdapter, LlavaNextAdapter
from vlm_adapters_llava.native_rows import Mistral3Adapter
from vlm_adapters_llava.onevision import LlavaOnevisionAdapter

_ADAPTERS: dict[str, type[TransformersBackbone]] = {
    "llava": LlavaAdapter,
    "llava_next": LlavaNextAdapter,
    "llava_onevision": LlavaOnevisionAdapter,
    "mistral3": Mistral3Adapter,
}
_SQUARES: dict[str, tuple[Any, Any]] = {
    "llava": (LlavaProcessor, CLIPImageProcessor),
    "llava_next": (LlavaNextProcessor, LlavaNextImageProcessor),
}


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    processor = _processor(facts, tokenizer)
    return _ADAPTERS[facts.config.model_type](facts.model(), processor, checkpoint=facts.name)


def _processor(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> Any:
    options = dict(facts.processor)
    settings, kind = options.pop("image_processor"), facts.config.model_type
    if kind == "llava_onevision":
        tokenizer = tokenizer or facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>")
        options = {"chat_template": tiny_onevision.CHAT_TEMPLATE, **options}
        images, videos = LlavaOnevisionImageProcessor(**settings), LlavaOnevisionVideoProcessor()
        return LlavaOnevisionProcessor(images, tokenizer, videos, **options)
    tokenizer = tokenizer or facts.tokenizer(end="</s>", padding="<pad>")
    if facts.config.vision_config.model_type == "pixtral":
        options = {"chat_template": tiny_native_rows.CHAT_TEMPLATE, **options}
        return PixtralProcessor(PixtralImageProcessor(**settings), tokenizer, **options)
    processor_class, image_class = _SQUARES[kind]
    return processor_class(image_class(**settings), tokenizer, **{"chat_template": tiny.CHAT_TEMPLATE, **options})
