"""SmolVLM and Idefics3: the image in square tiles, one after another, then once more as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt, prod
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import tile_spans
from vlm_adapters.geometry import Size


class SmolVLMAdapter(TransformersBackbone):
    """Adapter for SmolVLM, SmolVLM2 and Idefics3."""

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        return [self._layouts_of(size) for size in sizes]

    def _layouts_of(self, size: Size) -> list[ImageLayout]:
        """The image stretched over rows of tiles, where the processor splits it, and squashed to one tile."""
        images, config = self.processor.image_processor, self.model.config
        side, cells = images.max_image_size["longest_edge"], isqrt(self.processor.image_seq_len)
        cell = config.vision_config.patch_size * config.scale_factor
        seen = cells * cell  # the cells may leave pixels at the right and the bottom of a tile to none
        squashed = ImageLayout(size, (side, side), canvas=(seen, seen), cells=(cells, cells))
        _, *tiles = images.get_number_of_image_patches(*size)
        if not all(tiles):
            return [squashed]
        canvas = tiles[0] * side, tiles[1] * side
        rows, columns = (tile_spans(tiles=count, cells=cells, pixels=side, cell=cell) for count in tiles)
        fine = ImageLayout(
            size,
            resized=canvas,
            canvas=canvas,
            cells=(len(rows), len(columns)),
            tiles=(tiles[0], tiles[1]),
            rows=rows,
            columns=columns,
        )
        return [fine, replace(squashed, name="overview")]

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        """Give one line of all tiles; the processor gives every prompt one, filled up with empty tiles."""
        features = super().process_images(images, **options)
        # The processor counts the marks and newlines between tiles as image tokens too.
        features["mm_token_type_ids"] = features["input_ids"].eq(self.processor.image_token_id).long()
        counts = [sum(self._tile_count((one.height, one.width)) for one in of_prompt) for of_prompt in images]
        for name in ("pixel_values", "pixel_attention_mask"):
            lines = zip(features[name], counts, strict=True)
            features[name] = torch.cat([line[:count] for line, count in lines])[None]
        return features

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        counts = [self._tile_count(size) for size in sizes]
        tiles = {name: tensor.split(counts, dim=1) for name, tensor in features.items()}
        return {name: torch.cat([of_image[i] for i in indices], dim=1) for name, of_image in tiles.items()}

    def _tile_count(self, size: Size) -> int:
        return sum(prod(layout.tiles) for layout in self._layouts_of(size))
