"""The GLM-V family: native resolution, no padding, cells of patch x merge pixels."""

from __future__ import annotations

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
    def layouts(self, size: Size) -> list[ImageLayout]:
        images = self.processor.image_processor
        cell = images.patch_size * images.merge_size
        try:
            # The limits count the pixels of all frames, and an image is repeated to fill one temporal patch.
            height, width = smart_resize(
                images.temporal_patch_size,
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
        return [ImageLayout(size, (height, width), (height, width), (height // cell, width // cell))]
