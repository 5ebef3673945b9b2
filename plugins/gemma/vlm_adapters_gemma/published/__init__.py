"""Gemma 3 and PaliGemma checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import (
    Gemma3ImageProcessor,
    Gemma3Processor,
    PaliGemmaProcessor,
    PreTrainedTokenizerBase,
    SiglipImageProcessor,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_gemma.adapter import Gemma3Adapter, PaliGemmaAdapter
from vlm_adapters_gemma.tiny import CHAT_TEMPLATE

_PLACES = {f"<loc{index:0>4}>": 256000 + index for index in range(1024)} | {
    f"<seg{index:0>3}>": 257024 + index for index in range(128)
}
"""PaliGemma's tokens for coordinates and shapes, which its processor adds to a vocabulary without them."""


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    named = {"image_token": "<image>"}
    if facts.config.model_type == "gemma3":
        named = {
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        }
    else:
        facts = replace(facts, tokens={**facts.tokens, **_PLACES})
    text = tokenizer or facts.tokenizer(
        end="<eos>", padding="<pad>", bos_token="<bos>", unk_token="<unk>", extra_special_tokens=named
    )
    options = dict(facts.processor)
    if facts.config.model_type == "gemma3":
        square = Gemma3ImageProcessor(**options.pop("image_processor"))
        processor = Gemma3Processor(square, text, chat_template=CHAT_TEMPLATE, **options)
        return Gemma3Adapter(facts.model(), processor, checkpoint=checkpoint)
    images: Any = SiglipImageProcessor(**options["image_processor"])
    images.image_seq_length = options["image_seq_length"]
    capped = facts.config.get_text_config().model_type == "gemma2"
    model = facts.model("eager" if capped else "sdpa")
    return PaliGemmaAdapter(model, PaliGemmaProcessor(images, text), checkpoint=checkpoint)
