"""Fuyu: no vision tower, patches go straight into the language model, every row of them ends with a newline token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from vlm_adapters import ImageLayout, Prompt, PromptError, RenderedPrompt, TransformersBackbone
from vlm_adapters_fuyu.image_processor import FuyuImageProcessorWrapper

_START, _ANSWER, _END = "<s>", "<0x04>", "</s>"


class FuyuAdapter(TransformersBackbone):
    """Adapter for Fuyu. It knows one question about one image, and one answer."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """One grid over the image and its padding at the right and at the bottom."""
        return [FuyuImageProcessorWrapper(self.processor).layout(size)]

    @property
    def image_token_ids(self) -> frozenset[int]:
        """Patches and the newlines after their rows."""
        return frozenset({self.processor.image_token_id, self.processor.image_newline_id})

    def process_images(self, images: Sequence[Image.Image], **_: Any) -> BatchFeature:
        """Write the tokens of every image; the stock processor can write them only as part of a prompt."""
        wrapper = FuyuImageProcessorWrapper(self.processor)
        expansions = []
        for image in images:
            rows, columns = wrapper.layout((image.height, image.width)).cells
            row = [self.processor.image_token_id] * columns + [self.processor.image_newline_id]
            expansions.append(torch.tensor(row * rows))
        there = pad_sequence([torch.ones_like(ids) for ids in expansions], batch_first=True)
        ids = pad_sequence(expansions, batch_first=True)
        data = {"input_ids": ids, "attention_mask": there, "mm_token_type_ids": there}
        return BatchFeature(data | wrapper.to_model_inputs(wrapper.pixel_values(images)))

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """Write image, question and answer as the stock processor does; Fuyu has no chat template."""
        question, *answers = prompt.messages
        roles = [message.role for message in prompt.messages]
        if roles not in (["user"], ["user", "assistant"]) or len(question.images) != 1 or len(prompt.images) != 1:
            raise PromptError(
                f"Fuyu takes one image in one question, and at most one answer; found messages of {', '.join(roles)} "
                f"with {len(prompt.images)} images. Ask one question at a time."
            )
        before, after = f"{self.processor.image_token}{_START}", f"\n{_ANSWER}"
        spans, start = [], len(before)
        for message in prompt.messages:
            for part in (part for part in message.content if isinstance(part, str)):
                spans.append((start, start + len(part)))
                start += len(part)
            start += len(after)
        text = f"{before}{question.text}{after}" + "".join(f"{answer.text}{_END}" for answer in answers)
        return RenderedPrompt(text, tuple(spans), ((0, len(self.processor.image_token)),), has_start=True)
