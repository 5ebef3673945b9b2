"""LLaVA-1.5, one square grid or Pixtral's native one, and LLaVA-Next, a coarse grid and a fine one of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PixtralProcessor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.modeling_llava_next import unpad_image
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import fit_square, square_layout
from vlm_adapters.geometry import Size
from vlm_adapters_llava.native_rows import native_layout

NORMALISE_ONLY = {"do_resize": False, "do_center_crop": False, "do_pad": False}
"""Options with which the stock image processor leaves the size of an image alone."""


class LlavaAdapter(TransformersBackbone):
    """Adapter for LLaVA-1.5, and for Pixtral, whose checkpoints are of the same type.

    An image is resized so that its long side is the tower's, and centred on a square of the mean colour. The stock
    processor crops the centre instead, which loses the ends of every image that is not square. Where the tower is
    Pixtral's, the processor keeps all of the image, and is left alone.
    """

    attention_pattern = "causal"

    @property
    def _native(self) -> bool:
        """Whether images come at their own size."""
        return isinstance(self.processor, PixtralProcessor)

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        if self._native:
            return [[native_layout(self.processor, size)] for size in sizes]
        return [[layout_on_square(self.processor, size)] for size in sizes]

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.image_token_ids)

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        if self._native:
            return super().process_images(images, **options)
        place = partial(place_on_square, self.processor.image_processor)
        squares = [[place(image) for image in of_prompt] for of_prompt in images]
        return super().process_images(squares, **NORMALISE_ONLY, **options)


class LlavaNextAdapter(TransformersBackbone):
    """Adapter for LLaVA-Next: the image squashed to one tile, then in tiles at its own aspect."""

    attention_pattern = "causal"
    grid_names = ("overview", "fine")

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [self._layouts_of(size) for size in sizes]

    def _layouts_of(self, size: Size) -> list[ImageLayout]:
        images, patch = self.processor.image_processor, self.processor.patch_size
        side = self.model.config.vision_config.image_size
        dropped = self.processor.vision_feature_select_strategy == "default"
        first = self.processor.num_additional_image_tokens - dropped
        square, cells = (side, side), (side // patch, side // patch)
        overview = ImageLayout(size, square, square, cells, first=first, name="overview")
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
        # A newline token ends every row of the fine grid.
        fine = ImageLayout(
            size, resized, (cells[0] * patch, cells[1] * patch), cells, (offset[0], offset[1]), row_end=1
        )
        return [overview, fine]


def layout_on_square(processor: Any, size: Size) -> ImageLayout:
    """The square on which an image `(H, W)` is centred; a class token that the model keeps stands before its cells."""
    side = _side(processor.image_processor)
    dropped = processor.vision_feature_select_strategy == "default"
    layout = square_layout(size, side, side // processor.patch_size)
    return replace(layout, first=processor.num_additional_image_tokens - dropped)


def place_on_square(image_processor: Any, image: Image.Image) -> Image.Image:
    """Resize an image and centre it on a square of the processor's mean colour."""
    red, green, blue = (int(mean * 255) for mean in image_processor.image_mean)
    return fit_square(image, _side(image_processor), (red, green, blue))


def _side(image_processor: Any) -> int:
    """Pixels along each side of the square."""
    size = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    return int(size["height"])
