"""MiniCPM-V 4.6 and 4.7, whose image is shown whole and, where it is large, in slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from math import prod

import torch
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone


class MiniCPMVAdapter(TransformersBackbone):
    """Adapter for MiniCPM-V: the whole image at its own aspect, then slices of a larger one, tile after tile."""

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[tuple[int, int]]) -> list[list[ImageLayout]]:
        return [self._layouts_of(size) for size in sizes]

    def _layouts_of(self, size: tuple[int, int]) -> list[ImageLayout]:
        images = self.processor.image_processor
        cell = images.patch_size * (2 if images.downsample_mode == "4x" else 4)
        settings = {name: getattr(images, name) for name in ("scale_resolution", "patch_size", "downsample_mode")}
        # Older releases round all sizes as for the larger of the two cells.
        options = {name: settings[name] for name in settings if name in signature(images.get_refine_size).parameters}
        tiles = images.get_sliced_grid(size, images.max_slice_nums, images.scale_resolution)
        if tiles is None or not images.slice_mode:
            return [_squashed(size, images.find_best_resize(size, **options, allow_upscale=True), cell)]
        whole = images.find_best_resize(size, **options)
        sliced = images.get_refine_size(size, tiles, **options, allow_upscale=True)
        return [
            _squashed(size, whole, cell, name="overview"),
            _squashed(size, sliced, cell, tiles=(tiles[0], tiles[1])),
        ]

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        parts = [sum(prod(layout.tiles) for layout in self._layouts_of(size)) for size in sizes]
        of_images = features["target_sizes"].split(parts)
        patch = features["pixel_values"].shape[-2]  # all patches of all images stand side by side
        widths = [int(of_image.prod(-1).sum()) * patch for of_image in of_images]
        pixels = features["pixel_values"].split(widths, dim=-1)
        return {
            "pixel_values": torch.cat([pixels[index] for index in indices], dim=-1),
            "target_sizes": torch.cat([of_images[index] for index in indices]),
        }


def _squashed(
    size: tuple[int, int], resized: tuple[int, int], cell: int, *, name: str = "fine", tiles: tuple[int, int] = (1, 1)
) -> ImageLayout:
    """An image resized to whole cells."""
    return ImageLayout(size, resized, resized, (resized[0] // cell, resized[1] // cell), name=name, tiles=tiles)
