"""The GLM-V family: native resolution, no padding, cells of patch x merge pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import BatchFeature
from transformers.models.glm4v.image_processing_glm4v import smart_resize
from typing_extensions import override

from vlm_adapters import ImageLayout
from vlm_adapters.errors import ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.hf import NativeResolutionBackbone


class Glm4vAdapter(NativeResolutionBackbone):
    """Adapter for GLM-4.1V, GLM-4.5V and GLM-4.6V. An image has one grid, which covers it exactly."""

    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        # The limits count the pixels of all frames, and an image is repeated to fill one temporal patch.
        return [[self._layout(size, self.processor.image_processor.temporal_patch_size)] for size in sizes]

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        # The processor makes types with `numpy.array(tensor)`, of which numpy 2 warns.
        return super().process_images(images, return_mm_token_type_ids=False, **options)

    @property
    @override
    def video_token_ids(self) -> frozenset[int]:
        return self.image_token_ids  # between other marks

    def _layout(self, size: Size, frames: int) -> ImageLayout:
        images = self.processor.image_processor
        cell = images.patch_size * images.merge_size
        try:
            height, width = smart_resize(
                frames,
                *size,
                temporal_factor=images.temporal_patch_size,
                factor=cell,
                min_pixels=images.size["shortest_edge"],
                max_pixels=images.size["longest_edge"],
            )
        except ValueError as error:  # too long and narrow
            raise ImageError(
                f"An image of {size[1]} x {size[0]} pixels cannot be resized: {error}. Crop it."
            ) from error
        return ImageLayout(size, (height, width), (height, width), (height // cell, width // cell))
