"""InternVL checkpoints at full size, without weights: one file each beside this one."""

from __future__ import annotations

from pathlib import Path

from transformers import GotOcr2ImageProcessor, InternVLProcessor, PreTrainedTokenizerBase
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from vlm_adapters import TransformersBackbone
from vlm_adapters.hf import PublishedCheckpoint
from vlm_adapters_internvl.adapter import InternVLAdapter
from vlm_adapters_internvl.tiny import CHAT_TEMPLATE, TOKEN_NAMES


def build(checkpoint: str, tokenizer: PreTrainedTokenizerBase | None = None) -> TransformersBackbone | None:
    """Build the adapter of a published checkpoint on the meta device; None if this folder has no file of it.

    Args:
        checkpoint: Hub id.
        tokenizer: Tokenizer of the checkpoint; a stand-in without one.
    """
    facts = PublishedCheckpoint.read(Path(__file__).parent, checkpoint)
    if facts is None:
        return None
    options = {"chat_template": CHAT_TEMPLATE, **facts.processor}
    stand_in = facts.tokenizer(end="<|im_end|>", padding="<|endoftext|>", extra_special_tokens=TOKEN_NAMES)
    images = GotOcr2ImageProcessor(**options.pop("image_processor"))
    processor = InternVLProcessor(images, tokenizer or stand_in, InternVLVideoProcessor(), **options)
    return InternVLAdapter(facts.model(), processor, checkpoint=checkpoint)
