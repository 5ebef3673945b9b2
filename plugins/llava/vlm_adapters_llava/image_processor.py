"""LLaVA-1.5's images: the long side resized to the tower's, centred on a square of the mean colour.

The stock processor crops the centre instead, which loses the ends of every image that is not square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from vlm_adapters import ImageLayout, ImageProcessorWrapper, fit_square, square_layout


class LlavaImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over a `LlavaProcessor`."""

    @property
    def side(self) -> int:
        """Pixels along each side of the square."""
        size = self.image_processor.crop_size if self.image_processor.do_center_crop else self.image_processor.size
        return int(size["height"])

    def layout(self, size: tuple[int, int]) -> ImageLayout:
        """One square grid; a class token that the model keeps stands before it."""
        layout = square_layout(size, self.side, self.side // self.processor.patch_size)
        dropped = self.processor.vision_feature_select_strategy == "default"
        return replace(layout, first=self.processor.num_additional_image_tokens - dropped)

    def fit(self, image: Image.Image) -> Image.Image:
        """Lay an image on its square."""
        red, green, blue = (int(mean * 255) for mean in self.image_processor.image_mean)
        return fit_square(image, self.side, (red, green, blue))

    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """See `ImageProcessorWrapper`."""
        squares = [self.fit(image) for image in images]
        features = self.image_processor(squares, return_tensors="pt", **AS_IT_IS)
        return list(features["pixel_values"])

    def to_model_inputs(self, pixel_values: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the model's forward takes of images `(3, H, W)`."""
        return {"pixel_values": torch.stack(list(pixel_values))}


AS_IT_IS = {"do_resize": False, "do_center_crop": False, "do_pad": False}
"""Options by which the stock processor only normalises."""
