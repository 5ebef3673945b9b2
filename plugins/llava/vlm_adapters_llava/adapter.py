"""LLaVA-1.5, one square grid, and LLaVA-Next, a coarse grid and a fine one of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.modeling_llava_next import unpad_image

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters_llava.image_processor import AS_IT_IS, LlavaImageProcessorWrapper


class LlavaAdapter(TransformersBackbone):
    """Adapter for LLaVA-1.5."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """The square that the image is laid on."""
        return [LlavaImageProcessorWrapper(self.processor).layout(size)]

    def process_images(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Lay the images on squares, so that the stock processor has nothing to crop."""
        squares = [LlavaImageProcessorWrapper(self.processor).fit(image) for image in images]
        return super().process_images(squares, **AS_IT_IS, **options)


class LlavaNextAdapter(TransformersBackbone):
    """Adapter for LLaVA-Next: the image squashed to one tile, then in tiles at its own aspect."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """The coarse layout and the fine one, whose rows end with a newline token."""
        images, patch = self.processor.image_processor, self.processor.patch_size
        side = self.model.config.vision_config.image_size
        dropped = self.processor.vision_feature_select_strategy == "default"
        first = self.processor.num_additional_image_tokens - dropped
        coarse = ImageLayout(size, (side, side), (side, side), (side // patch, side // patch), first=first)
        canvas = select_best_resolution(size, images.image_grid_pinpoints)
        rows, columns = (length // patch for length in canvas)
        # What the installed library leaves of the padding, counted on a grid without values.
        cells = tuple(unpad_image(torch.empty(1, rows, columns, device="meta"), size).shape[1:])
        image = np.broadcast_to(np.uint8(0), (3, *size))  # the library reads sizes from images: one without pixels
        resized = get_patch_output_size(image, canvas, ChannelDimension.FIRST)
        offset = [
            (whole - length) // 2 - (all_cells - left) // 2 * patch
            for whole, length, all_cells, left in zip(canvas, resized, (rows, columns), cells, strict=True)
        ]
        fine = ImageLayout(
            size, resized, (cells[0] * patch, cells[1] * patch), cells, (offset[0], offset[1]), row_end=1
        )
        return [coarse, fine]
