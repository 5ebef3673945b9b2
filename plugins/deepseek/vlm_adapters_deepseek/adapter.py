"""DeepSeek-VL: one square grid, seen by one tower (1.3B) or two (7B)."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from vlm_adapters import TransformersBackbone, View, square_view
from vlm_adapters_deepseek.image_processor import DeepseekVLImageProcessorWrapper


class DeepseekVLAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with one tower."""

    def views(self, size: tuple[int, int]) -> list[View]:
        """The square that the stock processor lays the image on."""
        return [DeepseekVLImageProcessorWrapper(self.processor).view(size)]


class DeepseekVLHybridAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with two towers: both see one square, at two resolutions."""

    def views(self, size: tuple[int, int]) -> list[View]:
        """The square, rounded at the high resolution and measured in pixels of the low one, which has the cells."""
        images = self.processor.image_processor
        fine, side = images.high_res_size["height"], images.size["height"]
        view = square_view(size, fine, isqrt(self.processor.num_image_tokens), shortest=images.min_size)
        (height, width), (top, left), scale = view.resized, view.offset, side / fine
        return [
            replace(
                view,
                canvas=(side, side),
                resized=(height * scale, width * scale),
                offset=(top * scale, left * scale),
            )
        ]
