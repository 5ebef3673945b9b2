"""Gemma 3, whose image is squashed to one square, and Gemma 4, whose image keeps its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size
from typing_extensions import override

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone
from vlm_adapters.hf import RenderedPrompt

_AROUND = "\n\n"
"""What the processor of Gemma 3 writes before and after the tokens of every image."""


class Gemma3Adapter(TransformersBackbone):
    """Adapter for Gemma 3: one square of pooled patches, whose tokens see each other both ways.

    The crops of pan and scan, which the stock processor makes only on demand, are never made.
    """

    attention_pattern = "bidirectional images"

    @override
    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        side = int(self.model.config.vision_config.image_size)
        cells = int(self.model.config.mm_tokens_per_image**0.5)
        return [ImageLayout(size, (side, side), (side, side), (cells, cells))]

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.image_token_ids)  # `image_token_id` is the token before the first cell

    @override
    def process_images(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        features = super().process_images(images, do_pan_and_scan=False, **options)
        tokenizer = self.processor.tokenizer
        kept = torch.tensor([tokenizer.boi_token_id, tokenizer.image_token_id, tokenizer.eoi_token_id])
        # The line breaks around an image stand in the rendered text, where they may fuse with their neighbours.
        features["attention_mask"] = torch.isin(features["input_ids"], kept)
        return features

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        return _surrounded(super().render(prompt), _AROUND)


class Gemma4Adapter(TransformersBackbone):
    """Adapter for Gemma 4, also the unified one: an image keeps its shape and fills a budget of tokens."""

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, *, checkpoint: str = "", revision: str | None = None
    ) -> None:
        super().__init__(model, processor, checkpoint=checkpoint, revision=revision)
        rule = self.model.config.text_config.use_bidirectional_attention
        self.attention_pattern = "bidirectional images" if rule == "vision" else "causal"

    @override
    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        images = self.processor.image_processor
        pooled = images.pooling_kernel_size
        canvas = get_aspect_ratio_preserving_size(*size, images.patch_size, images.max_soft_tokens * pooled**2, pooled)
        cell = images.patch_size * pooled
        return [ImageLayout(size, canvas, canvas, (canvas[0] // cell, canvas[1] // cell))]


def _surrounded(rendered: RenderedPrompt, around: str) -> RenderedPrompt:
    """The rendered prompt with a text before and after every placeholder."""
    text, moved, end = "", [], 0
    for start, stop in rendered.slots:
        text += rendered.text[end:start] + around
        moved.append((len(text), len(text) + stop - start))
        text += rendered.text[start:stop] + around
        end = stop
    text += rendered.text[end:]

    def shift(position: int) -> int:
        """How far a character of user text moves."""
        return position + 2 * len(around) * sum(stop <= position for _, stop in rendered.slots)

    spans = tuple((shift(start), shift(start) + stop - start) for start, stop in rendered.user_spans)
    return replace(rendered, text=text, user_spans=spans, slots=tuple(moved))
