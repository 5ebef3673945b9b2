"""DeepSeek-VL: one square grid, seen by one tower (1.3B) or two (7B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import square_layout
from vlm_adapters.geometry import Size


class DeepseekVLAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with one tower."""

    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [[layout_on_square(self.processor, size)] for size in sizes]


class DeepseekVLHybridAdapter(TransformersBackbone):
    """Adapter for DeepSeek-VL with two towers: both see one square, at two resolutions."""

    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [[self._layout(size)] for size in sizes]

    def _layout(self, size: Size) -> ImageLayout:
        # The processor rounds at the high resolution; the cells belong to the tower of the low one.
        images = self.processor.image_processor
        fine, side = images.high_res_size["height"], images.size["height"]
        layout = square_layout(size, fine, isqrt(self.processor.num_image_tokens), shortest=images.min_size)
        (height, width), (top, left), scale = layout.resized, layout.offset, side / fine
        return replace(
            layout, canvas=(side, side), resized=(height * scale, width * scale), offset=(top * scale, left * scale)
        )


def layout_on_square(processor: Any, size: Size) -> ImageLayout:
    """The square on which a `DeepseekVLProcessor` centres an image `(H, W)`."""
    images = processor.image_processor
    return square_layout(size, images.size["height"], isqrt(processor.num_image_tokens), shortest=images.min_size)
