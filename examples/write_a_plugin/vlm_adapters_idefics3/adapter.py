"""SmolVLM and Idefics3: the image in square tiles, one after another, then once more as a whole."""

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from vlm_adapters import ImageGrid, ImageLayout, TransformersBackbone
from vlm_adapters.backbone import BackboneInputs


class Idefics3Adapter(TransformersBackbone):
    """Adapter for SmolVLM and Idefics3."""

    def layouts(self, size: tuple[int, int]) -> list[ImageLayout]:
        """The image squashed to one tile and, where the processor splits it, stretched over rows of tiles."""
        images, cells = self.processor.image_processor, isqrt(self.processor.image_seq_len)
        side = images.max_image_size["longest_edge"]
        whole = ImageLayout(size, resized=(side, side), canvas=(side, side), cells=(cells, cells))
        _, rows, columns = images.get_number_of_image_patches(*size)
        if not rows:
            return [whole]
        canvas = rows * side, columns * side
        return [whole, ImageLayout(size, resized=canvas, canvas=canvas, cells=(rows * cells, columns * cells))]

    def process_images(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Count as image tokens only those that show something; the processor counts the marks between tiles too."""
        features = super().process_images(images, **options)
        features["mm_token_type_ids"] = features["input_ids"].eq(self.processor.image_token_id).long()
        return features

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        """Bring every image's tokens into the order of its layouts, which are row by row."""
        ordered = tuple(
            tuple(self._by_rows(tokens, image) for tokens, image in zip(of_prompt, prompt.images, strict=True))
            for of_prompt, prompt in zip(inputs.image_tokens, inputs.prompts, strict=True)
        )
        return super().locate_image_tokens(replace(inputs, image_tokens=ordered))

    def _by_rows(self, tokens: Tensor, image: Image.Image) -> Tensor:
        """Sort `(T,)` tokens of one image: they come tile after tile, the whole image last."""
        side = isqrt(self.processor.image_seq_len)
        columns = self.layouts((image.height, image.width))[-1].cells[1] // side
        tiles = tokens[: -(side**2)].view(-1, columns, side, side)
        return torch.cat([tokens[-(side**2) :], tiles.transpose(1, 2).flatten()])
