"""InternVL: tiles of one size, then an overview of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import select_tiles, tiled_layouts
from vlm_adapters.geometry import Size


class InternVLAdapter(TransformersBackbone):
    """Adapter for InternVL.

    An image is squashed to the number of tiles whose aspect is nearest to its own. The overview, the image squashed to
    one tile, comes last; an image of one tile has none.
    """

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        images = self.processor.image_processor
        tile = (images.size["height"], images.size["width"])
        vision = self.model.config.vision_config
        scale = self.model.config.downsample_ratio
        cells = (int(tile[0] // vision.patch_size[0] * scale), int(tile[1] // vision.patch_size[1] * scale))
        found = []
        for size in sizes:
            columns, rows = get_optimal_tiled_canvas(size, tile, images.min_patches, images.max_patches)
            found.append(tiled_layouts(size, tile, cells, (rows, columns)))
        return found

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        return select_tiles(features, indices, self.layouts(sizes))
