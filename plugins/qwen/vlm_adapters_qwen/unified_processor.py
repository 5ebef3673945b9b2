"""Qwen's image processors behind the interface of pipelines that process images apart from text.

Such a pipeline wants images, `(3, H, W)`, and how each was resized and padded. Qwen's processors give flat patches of
all images in one tensor instead. The wrapper lets the processor do its work and only rearranges: `preprocess` puts
the patches back where they stand in the image, `to_model_inputs` takes them out again. No pixel is computed twice, so
the way there and back gives the processor's own output, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from vlm_adapters import (
    CheckpointError,
    ImageError,
    ImageLayout,
    ImageProcessorWrapper,
    ProcessedImages,
    wrap_image_processor,
)

__all__ = ["ModelInputs", "QwenImageProcessorWrapper", "wrap_image_processor"]

IMAGE_PROCESSORS = ("Qwen2VLImageProcessor",)
"""One class with several backends serves Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""


class ModelInputs(TypedDict):
    """What the model's forward takes of the images.

    `pixel_values` is float32 `(sum of gh*gw, C*T*p*p)`: patches of all images in merge-block order. `image_grid_thw`
    is int64 `(N, 3)`: per image 1, `gh` and `gw` patches.
    """

    pixel_values: Tensor
    image_grid_thw: Tensor


class QwenImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over the processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL.

    Args:
        processor: A combined Qwen processor, or its image processor. Its settings are read at every call.

    Raises:
        CheckpointError: It is neither.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        classes = {base.__name__ for base in type(self.image_processor).__mro__}
        if not any(name.startswith(IMAGE_PROCESSORS) for name in classes):
            raise CheckpointError(
                f"{type(processor).__name__} is not a processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. Give one, or call "
                "wrap_image_processor, which passes others through."
            )

    def layout(self, size: tuple[int, int]) -> ImageLayout:
        """One grid that covers exactly the image; nothing is padded or cropped."""
        cell = self.image_processor.patch_size * self.image_processor.merge_size
        height, width = size
        if not self.image_processor.do_resize:
            self._check_size(height, width)
        else:
            limits = dict(self.image_processor.size)
            if limits.get("shortest_edge") is None or limits.get("longest_edge") is None:
                raise ImageError(
                    f"{type(self.image_processor).__name__} has the size {limits}, and a size with shortest_edge and "
                    "longest_edge (pixels in all) is needed. Mend its settings."
                )
            try:
                height, width = smart_resize(
                    *size, factor=cell, min_pixels=limits["shortest_edge"], max_pixels=limits["longest_edge"]
                )
            except ValueError as error:
                raise ImageError(
                    f"{type(self.image_processor).__name__} refuses an image of {size[0]}x{size[1]} pixels (height x "
                    f"width): {error} Mend its settings or leave the image out."
                ) from error
        return ImageLayout(size, (height, width), (height, width), (height // cell, width // cell))

    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """See `ImageProcessorWrapper`."""
        features = self.image_processor.preprocess(list(images), return_tensors="pt")
        grids = [(gh, gw) for _, gh, gw in features["image_grid_thw"].tolist()]
        patches = features["pixel_values"].float().split([gh * gw for gh, gw in grids])
        return [self._image(rows, grid) for rows, grid in zip(patches, grids, strict=True)]

    def to_model_inputs(self, pixel_values: Sequence[Tensor] | ProcessedImages) -> ModelInputs:
        """Turn images back into what the model takes, equal bit for bit to the processor's own output.

        Args:
            pixel_values: Images `(3, H, W)` as `preprocess` gives them, of one or several calls; or all it returned.

        Raises:
            ImageError: There is no image, or one is not `(3, H, W)` with sides of whole cells.
        """
        values = list(pixel_values["pixel_values"] if isinstance(pixel_values, Mapping) else pixel_values)
        if not values:
            raise ImageError("There are no pixel values: the list is empty. Give at least one image.")
        for value in values:
            if not isinstance(value, Tensor) or value.ndim != 3 or value.shape[0] != 3 or not value.is_floating_point():
                raise ImageError(
                    f"Pixel values must be float tensors (3, H, W), got {_told(value)}. Give those of preprocess."
                )
            self._check_size(value.shape[1], value.shape[2])
        patch = self.image_processor.patch_size
        grids = [[1, value.shape[1] // patch, value.shape[2] // patch] for value in values]
        return {
            "pixel_values": torch.cat([self._patches(value) for value in values]),
            "image_grid_thw": torch.tensor(grids, device=values[0].device),
        }

    def _image(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Image `(C, H, W)` from its `patches (gh*gw, C*T*p*p)` in merge-block order."""
        patch, merge, time = self._sizes()
        (gh, gw), channels = grid, patches.shape[1] // (time * patch * patch)
        blocks = patches.view(gh // merge, gw // merge, merge, merge, channels, time, patch, patch)
        # A still image is every frame of its patches: one is enough. (row, column, in block, in patch) -> (C, H, W).
        return blocks[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6).reshape(channels, gh * patch, gw * patch)

    def _patches(self, image: Tensor) -> Tensor:
        """Patches `(gh*gw, C*T*p*p)` in merge-block order from an image `(C, H, W)`: the inverse of `_image`."""
        patch, merge, time = self._sizes()
        channels, height, width = image.shape
        blocks = image.reshape(
            channels, height // (merge * patch), merge, patch, width // (merge * patch), merge, patch
        ).permute(1, 4, 2, 5, 0, 3, 6)
        frames = blocks.unsqueeze(5).expand(*blocks.shape[:5], time, patch, patch)
        return frames.reshape((height // patch) * (width // patch), channels * time * patch * patch)

    def _sizes(self) -> tuple[int, int, int]:
        processor = self.image_processor
        return processor.patch_size, processor.merge_size, processor.temporal_patch_size

    def _check_size(self, height: int, width: int) -> None:
        cell = self.image_processor.patch_size * self.image_processor.merge_size
        if height < 1 or width < 1 or height % cell or width % cell:
            raise ImageError(
                f"An image of {height}x{width} pixels (height x width) does not divide into cells of {cell}x{cell}. "
                f"Give sides that are multiples of {cell}, as preprocess does while the processor resizes (do_resize)."
            )


def _told(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
