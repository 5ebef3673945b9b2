"""Fuyu's images: shrunk to fit where they are too large, padded at the right and at the bottom to whole patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import signature

import torch
from PIL import Image
from torch import Tensor
from transformers import FuyuForCausalLM

from vlm_adapters import ImageError, ImageLayout, ImageProcessorWrapper

PIXELS = next(
    name for name in ("pixel_values", "image_patches") if name in signature(FuyuForCausalLM.forward).parameters
)
"""What the model's forward calls them: `image_patches` before transformers 5.21."""


class FuyuImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over a `FuyuProcessor` or its image processor."""

    def layout(self, size: tuple[int, int]) -> ImageLayout:
        """One grid whose rows end with a newline token."""
        most, patch = self.image_processor.size, self.image_processor.patch_size
        scale = min(1.0, most["height"] / size[0], most["width"] / size[1])
        height, width = (int(length * scale) for length in size)
        if min(height, width) < 1:
            raise ImageError(
                f"An image of {size[1]} x {size[0]} pixels has no pixel left across when it is shrunk to fit "
                f"{most['width']} x {most['height']}. Crop it."
            )
        cells = math.ceil(height / patch["height"]), math.ceil(width / patch["width"])
        canvas = cells[0] * patch["height"], cells[1] * patch["width"]
        return ImageLayout(size, (height, width), canvas, cells, row_end=1)

    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """See `ImageProcessorWrapper`: without the padding that is in no patch."""
        values = []
        for image in images:
            rows, columns = self.layout((image.height, image.width)).canvas
            padded = self.image_processor([[image]], return_tensors="pt")["images"][0, 0]
            values.append(padded[:, :rows, :columns])
        return values

    def to_model_inputs(self, pixel_values: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the model's forward takes of images `(3, H, W)`: patches `(N, p * p * 3)` of all, in order."""
        patches = [self.image_processor.patchify_image(value[None])[0] for value in pixel_values]
        return {PIXELS: torch.cat(patches)}
