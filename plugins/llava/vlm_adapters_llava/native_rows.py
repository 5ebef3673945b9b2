"""Images at their own size, row by row: Mistral 3, and LLaVA with a Pixtral tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.models.pixtral.image_processing_pixtral import get_resize_output_image_size
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.errors import ImageError
from vlm_adapters.geometry import Size


class Mistral3Adapter(TransformersBackbone):
    """Adapter for Mistral 3 (Mistral Small 3.1 and 3.2, Ministral 3)."""

    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        layouts = [[native_layout(self.processor, size)] for size in sizes]
        for (layout,), (height, width) in zip(layouts, sizes, strict=True):
            # transformers' get_image_features squeezes the only token of a (1, D) tensor away, and fails to split it.
            if layout.cells == (1, 1):
                raise ImageError(
                    f"An image of {width} x {height} pixels is one token for this model, which transformers cannot "
                    f"divide among images. Enlarge it to more than {layout.canvas[1]} pixels on a side."
                )
        return layouts

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.image_token_ids)


def native_layout(processor: Any, size: Size) -> ImageLayout:
    """An image `(H, W)` stretched to full cells; every row ends with `[IMG_BREAK]`, the last with `[IMG_END]`."""
    image = np.broadcast_to(np.uint8(0), (*size, 3))  # the library reads sizes from images: one without pixels
    cell = processor.patch_size * processor.spatial_merge_size
    height, width = get_resize_output_image_size(image, processor.image_processor.size["longest_edge"], cell)
    return ImageLayout(size, (height, width), (height, width), (height // cell, width // cell), row_end=1)
