"""Llama 4: an image on a canvas of tiles, then an overview of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.llama4.image_processing_llama4 import (
    find_supported_resolutions,
    get_best_fit,
    get_max_res_without_distortion,
)
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import select_tiles, tiled_layouts
from vlm_adapters.geometry import Size


class Llama4Adapter(TransformersBackbone):
    """Adapter for Llama 4.

    An image keeps its aspect and lies at the top left of a canvas of tiles, the rest of which is black. The overview,
    the image squashed to one tile, comes last; an image of one tile has none.
    """

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, **options: Any) -> None:
        super().__init__(model, processor, **options)
        # The forward of transformers 5.24 reads `image_outputs` of the language model's output, which has none.
        self.model.get_decoder().register_forward_hook(_add_image_outputs)

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset({int(self.model.config.image_token_id)})

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        images, vision = self.processor.image_processor, self.model.config.vision_config
        tile = (images.size["height"], images.size["width"])
        cells = int(vision.image_size // vision.patch_size * vision.pixel_shuffle_ratio)
        canvases = torch.tensor(find_supported_resolutions(images.max_patches, images.size))
        found = []
        for size in sizes:
            height, width = map(int, get_best_fit(size, canvases, images.resize_to_max_canvas))
            room = (height, width)
            if not images.resize_to_max_canvas:  # an image is enlarged to one tile at most
                room = (min(max(size[0], tile[0]), height), min(max(size[1], tile[0]), width))
            down, across = get_max_res_without_distortion(size, room)
            tiles = (height // tile[0], width // tile[1])
            found.append(tiled_layouts(size, tile, (cells, cells), tiles, resized=(max(down, 1), max(across, 1))))
        return found

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        return select_tiles(features, indices, self.layouts(sizes))


def _add_image_outputs(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None
