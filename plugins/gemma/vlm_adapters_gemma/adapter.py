"""Gemma 3 on one square, Gemma 4 at the aspect of the image, PaliGemma with a question before its answer."""

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
from vlm_adapters.errors import PromptError
from vlm_adapters.hf import RenderedPrompt

_AROUND = "\n\n"
"""What the processor of Gemma 3 writes before and after the tokens of every image."""


class Gemma3Adapter(TransformersBackbone):
    """Adapter for Gemma 3: one square of pooled patches, whose tokens see each other both ways.

    The crops of pan and scan, which the stock processor makes only on demand, are never made.
    """

    attention_pattern = "bidirectional images"

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        side = int(self.model.config.vision_config.image_size)
        return _on_square(sizes, side, int(self.model.config.mm_tokens_per_image**0.5))

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.image_token_ids)  # `image_token_id` is the token before the first cell

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
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
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        images = self.processor.image_processor
        pooled, cell = images.pooling_kernel_size, images.patch_size * images.pooling_kernel_size
        budget = images.patch_size, images.max_soft_tokens * pooled**2, pooled
        layouts = []
        for size in sizes:
            canvas = get_aspect_ratio_preserving_size(*size, *budget)
            layouts.append([ImageLayout(size, canvas, canvas, (canvas[0] // cell, canvas[1] // cell))])
        return layouts


class PaliGemmaAdapter(TransformersBackbone):
    """Adapter for PaliGemma 1 and 2, whose images and question see each other both ways.

    A prompt is the user's turn (images and a question), which becomes the prefix, and the answer, which becomes the
    suffix. The checkpoints have no chat template; this is the form that their processor writes.
    """

    attention_pattern = "bidirectional prefix"

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        tower = self.model.config.vision_config
        return _on_square(sizes, tower.image_size, tower.image_size // tower.patch_size)

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        # Without the processor, which takes images with a question only; every image becomes as many tokens.
        every = [image for of_prompt in images for image in of_prompt]
        features: BatchFeature = self.processor.image_processor(every, return_tensors="pt", **options)
        ids = torch.full((len(every), self.processor.image_seq_length), self.processor.image_token_id)
        ones = torch.ones_like(ids)
        return BatchFeature({**features, "input_ids": ids, "attention_mask": ones, "token_type_ids": ones})

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        question, *answers = prompt.messages
        roles = [message.role for message in prompt.messages]
        if roles not in (["user"], ["user", "assistant"]) or not question.images or any(one.images for one in answers):
            raise PromptError(
                f"PaliGemma takes one question with at least one image, and its answer; found the turns {roles} with "
                f"{len(prompt.images)} images. Give Message('user', (image, question)) and at most one answer."
            )
        tokenizer = self.processor.tokenizer
        text, spans, slots = "", list[tuple[int, int]](), list[tuple[int, int]]()
        for part in question.content:
            is_text = isinstance(part, str)
            piece = part if isinstance(part, str) else self.processor.image_token
            (spans if is_text else slots).append((len(text), len(text) + len(piece)))
            text += piece + (tokenizer.bos_token if not is_text and len(slots) == len(question.images) else "")
        text += "\n"
        suffix = len(text)
        for answer in answers:
            for part in (part for part in answer.content if isinstance(part, str)):
                spans.append((len(text), len(text) + len(part)))
                text += part
            text += tokenizer.eos_token
        return RenderedPrompt(text, tuple(spans), tuple(slots), has_start=True, suffix=suffix)


def _on_square(sizes: Sequence[tuple[int, int]], side: int, cells: int) -> list[list[ImageLayout]]:
    """Images squashed to one square."""
    return [[ImageLayout(size, (side, side), (side, side), (cells, cells))] for size in sizes]


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
