"""DeepSeek-VL's images: the long side resized to the tower's, centred on a square, as the stock processor does."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from PIL import Image
from torch import Tensor

from vlm_adapters import ImageLayout, ImageProcessorWrapper, square_layout


class DeepseekVLImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over a `DeepseekVLProcessor`."""

    def layout(self, size: tuple[int, int]) -> ImageLayout:
        """One square grid."""
        side = self.image_processor.size["height"]
        return square_layout(size, side, isqrt(self.processor.num_image_tokens), shortest=self.image_processor.min_size)

    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """See `ImageProcessorWrapper`."""
        return list(self.image_processor(list(images), return_tensors="pt")["pixel_values"])

    def to_model_inputs(self, pixel_values: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the model's forward takes of images `(3, H, W)`."""
        return {"pixel_values": torch.stack(list(pixel_values))}
