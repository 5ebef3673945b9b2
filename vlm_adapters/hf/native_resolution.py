"""The base of families whose images keep their shape: patches of all images in one list, positions by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature
from typing_extensions import override

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.errors import ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.video import Video

_SECONDS = ("second_per_grid_ts", "video_second_per_grid")
"""What models call the seconds from one group of frames to the next, from which they count positions."""


class NativeResolutionBackbone(TransformersBackbone):
    """An adapter over a model that takes `image_grid_thw` and counts positions with `get_rope_index`.

    Qwen-VL and GLM-V are such families. A video has a grid for each group of frames that the tower puts together.
    """

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        # The patches of all images stand in one list.
        shapes, patches = features["image_grid_thw"], features["pixel_values"]
        by_image = patches.split(shapes.prod(dim=1).tolist())
        return {
            "pixel_values": torch.cat([by_image[index] for index in indices]),
            "image_grid_thw": shapes[list(indices)],
        }

    @override
    def position_ids(self, tensors: Mapping[str, Tensor]) -> Tensor:
        model: Any = self.model.base_model
        accepted = signature(model.get_rope_index).parameters
        positions: Tensor = model.get_rope_index(**{name: tensors[name] for name in accepted if name in tensors})[0]
        return positions

    @override
    def video_layouts(self, size: Size, frames: int) -> Sequence[ImageLayout]:
        videos = self.processor.video_processor
        together, cell = videos.temporal_patch_size, videos.patch_size * videos.merge_size
        empty = torch.empty(1, frames, 3, *size, dtype=torch.uint8, device="meta")
        try:  # with sizes and without values: the rule differs between families, and between releases
            resized = videos.resize(
                empty, size=videos.size, resample=videos.resample, factor=cell, temporal_factor=together, **self._capped
            )
        except ValueError as error:
            raise ImageError(
                f"A video of {frames} frames of {size[1]} x {size[0]} pixels cannot be resized: {error}. Crop it, or "
                "give other frames."
            ) from error
        height, width = resized.shape[-2:]
        cells = height // cell, width // cell
        return [
            ImageLayout(size, (height, width), (height, width), cells, frames=(first, min(first + together, frames)))
            for first in range(0, frames, together)
        ]

    @override
    def process_videos(self, videos: Sequence[Video], **options: Any) -> BatchFeature:
        features = super().process_videos(videos, **self._capped, **options)
        together = self.processor.video_processor.temporal_patch_size
        for name in _SECONDS:  # the processor knows one number of frames per second, and not the times of the caller
            if name in features:
                features[name] = torch.tensor([video.interval * together for video in videos])
        return features

    @property
    def _capped(self) -> dict[str, bool]:
        """Whether each frame of a long video gets fewer pixels; the processor warns where its config does not say."""
        videos = self.processor.video_processor
        name = "cap_pixels_per_frame"
        return {name: bool(getattr(videos, name))} if hasattr(videos, name) else {}
