"""Aya Vision and Command A Vision at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    AyaVisionProcessor,
    Cohere2VisionImageProcessor,
    Cohere2VisionProcessor,
    GotOcr2ImageProcessor,
    PreTrainedTokenizerBase,
)

from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_cohere.adapter import AyaVisionAdapter, Cohere2VisionAdapter
from vlm_adapters_cohere.tiny import CHAT_TEMPLATE, TOKEN_NAMES


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> AyaVisionAdapter:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = dict(facts.processor)
    settings, named = options.pop("image_processor"), facts.config.model_type == "cohere2_vision"
    tokenizer = tokenizer or facts.tokenizer(
        end="<|END_OF_TURN_TOKEN|>",
        padding="<PAD>",
        bos_token="<BOS_TOKEN>",
        **({"extra_special_tokens": TOKEN_NAMES} if named else {}),
    )
    placeholder = TOKEN_NAMES["image_token"] if named else "<image>"
    options["chat_template"] = CHAT_TEMPLATE.replace("image_token", f"'{placeholder}'")
    if named:
        processor = Cohere2VisionProcessor(Cohere2VisionImageProcessor(**settings), tokenizer, **options)
        return Cohere2VisionAdapter(facts.model(), processor, checkpoint=facts.name)
    tiles = AyaVisionProcessor(GotOcr2ImageProcessor(**settings), tokenizer, **options)
    return AyaVisionAdapter(facts.model(), tiles, checkpoint=facts.name)
