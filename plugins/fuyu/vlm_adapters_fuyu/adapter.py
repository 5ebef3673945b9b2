"""Fuyu: no vision tower, patches go straight into the language model, every row of them ends with a newline token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, FuyuForCausalLM
from typing_extensions import override

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone
from vlm_adapters.errors import ImageError, PromptError
from vlm_adapters.geometry import Size
from vlm_adapters.hf import RenderedPrompt

PIXELS = next(
    name for name in ("pixel_values", "image_patches") if name in signature(FuyuForCausalLM.forward).parameters
)
"""The name under which the model's forward takes the patches: `image_patches` before transformers 5.21."""

_START, _ANSWER, _END = "<s>", "<0x04>", "</s>"


class FuyuAdapter(TransformersBackbone):
    """Adapter for Fuyu, which answers one question about one image."""

    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [[padded_layout(self.processor.image_processor, size)] for size in sizes]

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset({self.processor.image_token_id, self.processor.image_newline_id})

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **_: Any) -> BatchFeature:
        # The stock processor writes the tokens of an image only as part of a prompt.
        every = [image for of_prompt in images for image in of_prompt]
        expansions = []
        for (layout,) in self.layouts([(image.height, image.width) for image in every]):
            rows, columns = layout.cells
            row = [self.processor.image_token_id] * columns + [self.processor.image_newline_id]
            expansions.append(torch.tensor(row * rows))
        mask = pad_sequence([torch.ones_like(ids) for ids in expansions], batch_first=True)
        ids = pad_sequence(expansions, batch_first=True)
        processor = self.processor.image_processor
        patches = patches_of(processor, padded_pixels(processor, every))
        return BatchFeature({"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": mask, PIXELS: patches})

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        # The patches of all images stand in one list.
        by_image = features[PIXELS].split([math.prod(layout.cells) for (layout,) in self.layouts(sizes)])
        return {PIXELS: torch.cat([by_image[index] for index in indices])}

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        # Fuyu has no chat template; its processor writes image, question and answer in this way.
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


def padded_layout(image_processor: Any, size: tuple[int, int]) -> ImageLayout:
    """The layout of an image `(H, W)`: shrunk where it is too large, padded at the right and bottom to whole patches.

    A newline token ends every row of its grid.

    Raises:
        ImageError: Nothing is left of one side when the image is shrunk.
    """
    limit, patch = image_processor.size, image_processor.patch_size
    scale = min(1.0, limit["height"] / size[0], limit["width"] / size[1])
    height, width = (int(length * scale) for length in size)
    if min(height, width) < 1:
        raise ImageError(
            f"An image of {size[1]} x {size[0]} pixels has no pixel left across when it is shrunk to fit "
            f"{limit['width']} x {limit['height']}. Crop it."
        )
    cells = math.ceil(height / patch["height"]), math.ceil(width / patch["width"])
    canvas = cells[0] * patch["height"], cells[1] * patch["width"]
    return ImageLayout(size, (height, width), canvas, cells, row_end=1)


def padded_pixels(image_processor: Any, images: Sequence[Image.Image]) -> list[Tensor]:
    """Images as float32 `(3, H, W)`, padded to whole patches; the stock processor pads them further."""
    values = []
    for image in images:
        rows, columns = padded_layout(image_processor, (image.height, image.width)).canvas
        padded = image_processor([[image]], return_tensors="pt")["images"][0, 0]
        values.append(padded[:, :rows, :columns])
    return values


def patches_of(image_processor: Any, pixel_values: Sequence[Tensor]) -> Tensor:
    """Patches `(N, p * p * 3)` of all images `(3, H, W)`, in order."""
    return torch.cat([image_processor.patchify_image(value[None])[0] for value in pixel_values])
