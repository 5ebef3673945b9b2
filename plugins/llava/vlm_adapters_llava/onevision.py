"""LLaVA-OneVision: a coarse grid and a fine one of tiles for an image that is alone, else one padded square."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, floor, sqrt

import numpy as np
import torch
from torch import Tensor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.backbone import tile_spans
from vlm_adapters.geometry import Size, Span


class LlavaOnevisionAdapter(TransformersBackbone):
    """Adapter for LLaVA-OneVision."""

    grid_names = ("overview", "fine")
    attention_pattern = "causal"

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        if len(sizes) == 1:
            return [[self._squashed(sizes[0]), self._tiled(sizes[0])]]
        return [[self._padded(size)] for size in sizes]

    @override
    def video_layouts(self, size: Size, frames: int) -> list[ImageLayout]:
        # Every frame is squashed, and its cells are resampled to half as many along each side; a newline ends the last.
        squashed = self._squashed(size)
        cells = ceil(squashed.cells[0] / 2), ceil(squashed.cells[1] / 2)
        of_frame = replace(squashed, cells=cells, name="fine")
        return [replace(of_frame, frames=(frame, frame + 1), last=int(frame == frames - 1)) for frame in range(frames)]

    def _squashed(self, size: Size) -> ImageLayout:
        """The image stretched to one tile, of which the last pixels may belong to no cell."""
        config = self.model.config.vision_config
        side, cells = config.image_size, config.image_size // config.patch_size
        seen = cells * config.patch_size
        return ImageLayout(size, (side, side), (seen, seen), (cells, cells), name="overview")

    def _padded(self, size: Size) -> ImageLayout:
        """The image in the middle of one square tile, with one newline at the end."""
        height, width, longest = *size, max(size)
        squashed = self._squashed(size)
        scale = squashed.resized[0] / longest
        return replace(
            squashed,
            resized=(height * scale, width * scale),
            offset=((longest - height) // 2 * scale, (longest - width) // 2 * scale),
            last=1,
            name="fine",
        )

    def _tiled(self, size: Size) -> ImageLayout:
        """The image in the middle of several tiles, without the rows or columns that are padding.

        A newline ends every row. Too many cells are resampled to fewer.
        """
        config = self.model.config
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        canvas = select_best_resolution(size, self.processor.image_processor.image_grid_pinpoints)
        all_spans = [tile_spans(length // side, side // patch, side, patch) for length in canvas]
        # What the installed library leaves of the padding, counted on a grid without values.
        cells = unpad_image(torch.empty(1, *map(len, all_spans), device="meta"), size).shape[1:]
        spans = [
            of_side[(len(of_side) - count) // 2 :][:count] for of_side, count in zip(all_spans, cells, strict=True)
        ]
        most = int(self.processor.vision_aspect_ratio.removeprefix("anyres_max_")) * (side // patch) ** 2
        if (excess := sqrt(cells[0] * cells[1] / most)) > 1.1:
            spans = [fewer_spans(of_side, int(len(of_side) // excess)) for of_side in spans]
        image = np.broadcast_to(np.uint8(0), (3, *size))  # the library reads sizes from images: one without pixels
        resized = get_patch_output_size(image, canvas, ChannelDimension.FIRST)
        return ImageLayout(
            size,
            resized,
            canvas,
            cells=(len(spans[0]), len(spans[1])),
            offset=((canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2),
            row_end=1,
            rows=spans[0],
            columns=spans[1],
        )

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        of_images = {name: tensor for name, tensor in features.items() if name != "batch_num_images"}
        chosen = super().select_images(of_images, indices, sizes)
        counts = features["batch_num_images"]  # a line per prompt
        owner = torch.arange(len(counts)).repeat_interleave(counts.cpu())
        firsts = torch.cat([torch.tensor([True]), owner[1:] != owner[:-1]])
        prompts = [int(owner[index]) for index in indices if firsts[index]]
        return chosen | {"batch_num_images": counts[prompts]}


def fewer_spans(spans: Sequence[Span], count: int) -> tuple[Span, ...]:
    """Where cells stand along a side after they were resampled evenly to fewer."""

    def at(place: float, cell: int) -> float:
        first, last = spans[cell]
        return first + (place - cell) * (last - first)

    edges = [index * len(spans) / count for index in range(count + 1)]
    return tuple((at(start, floor(start)), at(end, ceil(end) - 1)) for start, end in pairwise(edges))
