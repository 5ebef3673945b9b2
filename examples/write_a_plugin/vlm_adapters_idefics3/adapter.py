"""SmolVLM and Idefics3: the image in square tiles, one after another, then once more as a whole."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from PIL import Image
from transformers import BatchFeature
from vlm_adapters import ImageLayout, TransformersBackbone


class Idefics3Adapter(TransformersBackbone):
    """Adapter for SmolVLM and Idefics3."""

    attention_pattern = "causal"
    grid_names = ("overview", "fine")

    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        """For every image: stretched over rows of tiles, where the processor splits it, and squashed to one tile."""
        return [self._layouts_of(size) for size in sizes]

    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        """Count as image tokens only those that show something; the processor counts the marks between tiles too."""
        features = super().process_images(images, **options)
        features["mm_token_type_ids"] = features["input_ids"].eq(self.processor.image_token_id).long()
        return features

    def _layouts_of(self, size: tuple[int, int]) -> list[ImageLayout]:
        images, cells = self.processor.image_processor, isqrt(self.processor.image_seq_len)
        side = images.max_image_size["longest_edge"]
        _, rows, columns = images.get_number_of_image_patches(*size)
        if not rows:
            return [ImageLayout(size, (side, side), (side, side), (cells, cells))]
        canvas, tiles = (rows * side, columns * side), (rows, columns)
        return [
            ImageLayout(size, canvas, canvas, (rows * cells, columns * cells), tiles=tiles),
            ImageLayout(size, (side, side), (side, side), (cells, cells), name="overview"),
        ]
