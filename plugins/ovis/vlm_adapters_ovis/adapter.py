"""Ovis 2: an overview of the image, then tiles of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import select_tiles, tiled_layouts
from vlm_adapters.geometry import Size


class Ovis2Adapter(TransformersBackbone):
    """Adapter for Ovis 2.

    The overview, the image squashed to one tile, comes first, then its tiles; an image of one tile has no overview.
    """

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset({int(self.model.config.image_token_id)})

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        images, vision = self.processor.image_processor, self.model.config.vision_config
        tile = (images.size["height"], images.size["width"])
        # An odd number of patches is padded at the right and bottom before neighbours are joined.
        cells = -(-(tile[0] // vision.patch_size) // vision.hidden_stride)
        return [tiled_layouts(size, tile, (cells, cells), self._tiles(size), overview_first=True) for size in sizes]

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        return select_tiles(features, indices, self.layouts(sizes))

    def _tiles(self, size: Size) -> Size:
        """Rows and columns of tiles, as the installed library cuts an image; it mistakes one for the other."""
        images = self.processor.image_processor
        if not images.crop_to_patches or images.max_patches == 1:
            return 1, 1
        _, grids = images.crop_image_to_patches(
            torch.empty(1, 3, *size, device="meta"),
            images.min_patches,
            images.max_patches,
            images.use_covering_area_grid,
            patch_size=images.size,
            resample=images.resample,
        )
        rows, columns = grids[0]
        return rows, columns
