"""Fuyu's images for pipelines that process images apart from text."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout
from vlm_adapters.hf import ImageProcessorWrapper
from vlm_adapters_fuyu.adapter import PIXELS, padded_layout, padded_pixels, patches_of


class FuyuImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over a `FuyuProcessor` or its image processor."""

    @override
    def layout(self, size: tuple[int, int]) -> ImageLayout:
        return padded_layout(self.image_processor, size)

    @override
    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        return padded_pixels(self.image_processor, images)

    def to_model_inputs(self, pixel_values: Sequence[Tensor]) -> dict[str, Tensor]:
        """Turn images `(3, H, W)` into what the model's forward takes."""
        return {PIXELS: patches_of(self.image_processor, pixel_values)}
