"""Molmo 2, whose image is shown as a square at low resolution and at its own aspect at high resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry
from typing_extensions import override

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone
from vlm_adapters.hf import RenderedPrompt


class Molmo2Adapter(TransformersBackbone):
    """Adapter for Molmo 2: a cell of either grid is pooled from a few patches, at the border also from fewer.

    The high resolution comes in overlapping crops, of which every patch of the image is used once, so its grid is one
    without seams.
    """

    grid_names = ("overview", "fine")
    attention_pattern = "bidirectional images"

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        images, processor = self.processor.image_processor, self.processor
        side, columns = int(images.size["height"]), processor.use_single_crop_col_tokens
        separated = processor.image_use_col_tokens if columns is None else columns
        layouts = []
        for size in sizes:
            crops = images.max_crops, images.overlap_margins, side, images.patch_size
            canvas = compute_crop_geometry(*size, *crops)[2:]
            overview = _pooled(images, size, (side, side), row_end=int(separated))
            fine = _pooled(images, size, canvas, row_end=int(processor.image_use_col_tokens))
            layouts.append([replace(overview, name="overview"), fine])
        return layouts

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.image_token_ids)

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        # Each as if alone, which makes no difference to the processor of this family.
        features = super().process_images([[image] for of_prompt in images for image in of_prompt], **options)
        kept = torch.tensor(self.processor.image_token_ids)
        features["attention_mask"] = torch.isin(features["input_ids"], kept)  # without the start token of texts
        return features

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        crops, grids = features["image_num_crops"], features["image_grids"]
        pixels = features["pixel_values"].split(crops.tolist())
        tokens = (grids[:, 0] * grids[:, 1] + grids[:, 2] * grids[:, 3]).tolist()
        pooled = features["image_token_pooling"].split(tokens)
        patches = features["pixel_values"].shape[1]
        starts = (crops.cumsum(0) - crops) * patches  # what is pooled is counted over the patches of all images
        chosen = list(indices)
        begins = (crops[chosen].cumsum(0) - crops[chosen]) * patches
        moved = [
            torch.where(pooled[index] < 0, pooled[index], pooled[index] - starts[index] + begin)
            for index, begin in zip(chosen, begins, strict=True)
        ]
        return {
            "pixel_values": torch.cat([pixels[index] for index in chosen]),
            "image_token_pooling": torch.cat(moved),
            "image_grids": grids[chosen],
            "image_num_crops": crops[chosen],
        }

    @override
    def render(self, prompt: Prompt) -> RenderedPrompt:
        rendered = super().render(prompt)
        start = self.processor.tokenizer.bos_token or self.processor.tokenizer.eos_token
        if rendered.text.startswith(start):
            return rendered
        # The processor puts this token before every text.
        shift = len(start)
        return replace(
            rendered,
            text=start + rendered.text,
            user_spans=tuple((begin + shift, end + shift) for begin, end in rendered.user_spans),
            slots=tuple((begin + shift, end + shift) for begin, end in rendered.slots),
        )


def _pooled(images: Any, size: tuple[int, int], resized: tuple[int, int], *, row_end: int) -> ImageLayout:
    """An image squashed to whole patches, of which a few make a cell; the last cell may reach beyond the image."""
    patches = [length // images.patch_size for length in resized]
    rows, columns = (-(-count // pool) for count, pool in zip(patches, images.pooling_size, strict=True))
    down, across = images.pooling_size
    added = rows * down - patches[0], columns * across - patches[1]
    return ImageLayout(
        size,
        resized,
        canvas=(rows * down * images.patch_size, columns * across * images.patch_size),
        cells=(rows, columns),
        offset=(added[0] // 2 * images.patch_size, added[1] // 2 * images.patch_size),
        first=1,
        row_end=row_end,
        last=1,
    )
