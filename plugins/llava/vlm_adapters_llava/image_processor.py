"""LLaVA-1.5's images for pipelines that process images apart from text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout
from vlm_adapters.hf import ImageProcessorWrapper
from vlm_adapters_llava.adapter import NORMALISE_ONLY, layout_on_square, place_on_square


class LlavaImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over a `LlavaProcessor`."""

    @override
    def layout(self, size: tuple[int, int]) -> ImageLayout:
        return layout_on_square(self.processor, size)

    @override
    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        squares = [place_on_square(self.image_processor, image) for image in images]
        features = self.image_processor(squares, return_tensors="pt", **NORMALISE_ONLY)
        return list(features["pixel_values"])

    def to_model_inputs(self, pixel_values: Sequence[Tensor]) -> dict[str, Tensor]:
        """Turn images `(3, H, W)` into what the model's forward takes."""
        return {"pixel_values": torch.stack(list(pixel_values))}
