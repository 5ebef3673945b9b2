"""LFM2-VL: a small image at about its own size; a large one in square tiles, then once more as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import select_tiles
from vlm_adapters.geometry import Size

SPLITTING = (
    *("downsample_factor", "min_tiles", "max_tiles", "use_thumbnail", "min_image_tokens", "max_image_tokens"),
    *("encoder_patch_size", "tile_size", "max_pixels_tolerance", "resample"),
)
"""The settings of the image processor by which it resizes and splits an image."""


class Lfm2VlAdapter(TransformersBackbone):
    """Adapter for LFM2-VL."""

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [self._layouts_of(size) for size in sizes]

    def _layouts_of(self, size: Size) -> list[ImageLayout]:
        """The image stretched to full cells; before it, where there are several tiles, stretched over these."""
        images = self.processor.image_processor
        settings = {name: getattr(images, name) for name in SPLITTING}
        if not images.do_image_splitting:
            settings |= {"min_tiles": 1, "max_tiles": 1}
        # The installed library's own rule, on an image without pixels.
        blank = torch.empty(1, 3, *size, device="meta")
        _, (down,), (across,), (resized,) = images.resize_and_split(blank, **settings)
        cell = images.encoder_patch_size * images.downsample_factor
        height, width = resized
        whole = ImageLayout(size, (height, width), (height, width), (height // cell, width // cell))
        if down * across == 1:
            return [whole]
        canvas = down * images.tile_size, across * images.tile_size
        tiles = ImageLayout(size, canvas, canvas, (canvas[0] // cell, canvas[1] // cell), tiles=(down, across))
        return [tiles, replace(whole, name="overview")] if images.use_thumbnail else [tiles]

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        return select_tiles(features, indices, self.layouts(sizes))
