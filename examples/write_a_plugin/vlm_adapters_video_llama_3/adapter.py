"""VideoLLaMA 3: an image at its own aspect, in as many cells as its size gives."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers.models.video_llama_3.image_processing_video_llama_3 import smart_resize
from vlm_adapters import ImageLayout, TransformersBackbone


class VideoLlama3Adapter(TransformersBackbone):
    """Adapter for the images of VideoLLaMA 3."""

    attention_pattern = "causal"

    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        """Stretch every image to full cells; how many there may be is the processor's `size`, in pixels."""
        images = self.processor.image_processor
        cell, pixels = images.patch_size * images.merge_size, images.size
        limits = {"min_pixels": pixels["shortest_edge"], "max_pixels": pixels["longest_edge"]}
        canvases = [smart_resize(*size, factor=cell, **limits) for size in sizes]
        return [
            [ImageLayout(size, resized=(height, width), canvas=(height, width), cells=(height // cell, width // cell))]
            for size, (height, width) in zip(sizes, canvases, strict=True)
        ]

    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Choose images: `pixel_values` has a line for each patch, the other tensors have one for each image."""
        of_images = {name: tensor for name, tensor in features.items() if name != "pixel_values"}
        patches = features["pixel_values"].split(of_images["image_grid_thw"].prod(dim=1).tolist())
        chosen = super().select_images(of_images, indices, sizes)
        return chosen | {"pixel_values": torch.cat([patches[index] for index in indices])}
