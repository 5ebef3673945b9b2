"""Aya Vision and Command A Vision: tiles of one size, then an overview of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers.models.cohere2_vision import image_processing_cohere2_vision as cohere2_vision
from transformers.models.got_ocr2 import image_processing_got_ocr2 as got_ocr2
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import select_tiles, tiled_layouts
from vlm_adapters.geometry import Size


class AyaVisionAdapter(TransformersBackbone):
    """Adapter for Aya Vision.

    An image is squashed to the number of tiles whose aspect is nearest to its own. The overview, the image squashed to
    one tile, comes last; an image of one tile has none.
    """

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset({int(self.model.config.image_token_id)})

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        config = self.model.config
        cells = config.vision_config.image_size // config.vision_config.patch_size // config.downsample_factor
        return [tiled_layouts(size, self._tile, (cells, cells), self.tiles(size)) for size in sizes]

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        return select_tiles(features, indices, self.layouts(sizes))

    def tiles(self, size: Size) -> Size:
        """Rows and columns of tiles of an image `(H, W)`, as the installed library chooses them."""
        images = self.processor.image_processor
        columns, rows = got_ocr2.get_optimal_tiled_canvas(size, self._tile, images.min_patches, images.max_patches)
        return rows, columns

    @property
    def _tile(self) -> Size:
        size = self.processor.image_processor.size
        return size["height"], size["width"]


class Cohere2VisionAdapter(AyaVisionAdapter):
    """Adapter for Command A Vision: as Aya Vision, with the tiles that enlarge an image least."""

    @override
    def tiles(self, size: Size) -> Size:
        images = self.processor.image_processor
        if not images.crop_to_patches:
            return 1, 1
        columns, rows = cohere2_vision.get_optimal_tiled_canvas(
            size, self._tile, images.min_patches, images.max_patches
        )
        return rows, columns
