"""InternVL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import GotOcr2ImageProcessor, InternVLProcessor, PreTrainedTokenizerBase
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint, published_in
from vlm_adapters_internvl.adapter import InternVLAdapter
from vlm_adapters_internvl.tiny import CHAT_TEMPLATE, TOKEN_NAMES


@published_in(Path(__file__).parent)
def build(facts: PublishedCheckpoint, tokenizer: PreTrainedTokenizerBase | None) -> TransformersBackbone:
    """Build the adapter of a published checkpoint on the meta device.

    Args:
        facts: Settings of the checkpoint.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    stand_in = facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>", extra_special_tokens=TOKEN_NAMES)
    images = GotOcr2ImageProcessor(**options.pop("image_processor"))
    processor = InternVLProcessor(images, tokenizer or stand_in, InternVLVideoProcessor(), **options)
    return InternVLAdapter(facts.model(), processor, checkpoint=facts.name)
