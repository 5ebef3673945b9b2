"""DeepSeek-VL: one square grid, seen by one tower (1.3B) or two (7B)."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from vlm_adapters import ImageLayout, TransformersBackbone, square_layout
from vlm_adapters_deepseek.image_processor import DeepseekVLImageProcessorWrapper


class DeepseekVLAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with one tower."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """The square that the stock processor lays the image on."""
        return [DeepseekVLImageProcessorWrapper(self.processor).layout(size)]


class DeepseekVLHybridAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with two towers: both see one square, at two resolutions."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """The square, rounded at the high resolution and measured in pixels of the low one, which has the cells."""
        images = self.processor.image_processor
        fine, side = images.high_res_size["height"], images.size["height"]
        layout = square_layout(size, fine, isqrt(self.processor.num_image_tokens), shortest=images.min_size)
        (height, width), (top, left), scale = layout.resized, layout.offset, side / fine
        return [
            replace(
                layout,
                canvas=(side, side),
                resized=(height * scale, width * scale),
                offset=(top * scale, left * scale),
            )
        ]
