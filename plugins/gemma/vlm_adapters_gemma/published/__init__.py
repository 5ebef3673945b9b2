"""Gemma and PaliGemma checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import (
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedImageProcessor,
    Gemma4UnifiedProcessor,
    Gemma4UnifiedVideoProcessor,
    Gemma4VideoProcessor,
    PaliGemmaProcessor,
    PreTrainedTokenizerBase,
    SiglipImageProcessor,
)

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_gemma.adapter import Gemma3Adapter, Gemma4Adapter, PaliGemmaAdapter
from vlm_adapters_gemma.tiny import CHAT_TEMPLATE, GEMMA4_NAMES, GEMMA4_TEMPLATE

_NAMES: dict[str, dict[str, str]] = {
    "gemma3": {"image": "<image_soft_token>", "boi": "<start_of_image>", "eoi": "<end_of_image>"},
    "gemma4": GEMMA4_NAMES,
    "gemma4_unified": GEMMA4_NAMES,
    "paligemma": {"image": "<image>"},
}
"""Control tokens by the names under which the processor looks for them."""

_PLACES = {f"<loc{index:0>4}>": 256000 + index for index in range(1024)} | {
    f"<seg{index:0>3}>": 257024 + index for index in range(128)
}
"""PaliGemma's tokens for coordinates and shapes, which its processor adds to a vocabulary without them."""

_PARTS: dict[str, tuple[Any, Any, Any, Any]] = {
    "gemma4": (Gemma4Processor, Gemma4AudioFeatureExtractor, Gemma4ImageProcessor, Gemma4VideoProcessor),
    "gemma4_unified": (
        Gemma4UnifiedProcessor,
        Gemma4UnifiedAudioFeatureExtractor,
        Gemma4UnifiedImageProcessor,
        Gemma4UnifiedVideoProcessor,
    ),
}


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    kind = facts.config.model_type
    if kind == "paligemma":
        facts = replace(facts, tokens={**facts.tokens, **_PLACES})
    names = {f"{name}_token": token for name, token in _NAMES[kind].items()}
    text = tokenizer or facts.tokenizer(
        end="<eos>", padding="<pad>", bos_token="<bos>", unk_token="<unk>", extra_special_tokens=names
    )
    if kind in _PARTS:
        return _gemma4(facts, text)
    return _gemma3(facts, text) if kind == "gemma3" else _paligemma(facts, text)


def _gemma3(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase) -> Gemma3Adapter:
    options = dict(facts.processor)
    square = Gemma3ImageProcessor(**options.pop("image_processor"))
    processor = Gemma3Processor(square, tokenizer, chat_template=CHAT_TEMPLATE, **options)
    return Gemma3Adapter(facts.model(), processor, checkpoint=facts.name)


def _gemma4(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase) -> Gemma4Adapter:
    processor_class, sounds, images, videos = _PARTS[facts.config.model_type]
    pictures = images(**facts.processor["image_processor"])
    processor = processor_class(sounds(), pictures, tokenizer, videos(), chat_template=GEMMA4_TEMPLATE)
    return Gemma4Adapter(facts.model(None), processor, checkpoint=facts.name)  # its audio tower has no sdpa


def _paligemma(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase) -> PaliGemmaAdapter:
    images: Any = SiglipImageProcessor(**facts.processor["image_processor"])
    images.image_seq_length = facts.processor["image_seq_length"]
    capped = facts.config.get_text_config().model_type == "gemma2"
    model = facts.model("eager" if capped else "sdpa")
    return PaliGemmaAdapter(model, PaliGemmaProcessor(images, tokenizer), checkpoint=facts.name)
