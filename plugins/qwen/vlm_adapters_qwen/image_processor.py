"""Qwen-VL's images for pipelines that process images apart from text.

Such a pipeline expects images `(3, H, W)` and how each was resized and padded. Qwen's processors give flat patches of
all images in one tensor instead. The wrapper lets the processor do its work and only rearranges: `preprocess` puts the
patches where they stand in the image, `to_model_inputs` takes them out again. No pixel is computed twice, so the round
trip gives the output of the processor, bit for bit.

The size of an image follows the adapter's rule, that of `qwen_vl_utils`. The rule of transformers differs for images
with a side shorter than half a cell; they are resized before the processor sees them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from vlm_adapters import ImageLayout
from vlm_adapters.errors import CheckpointError, ImageError
from vlm_adapters.hf import ImageProcessorWrapper, ProcessedImages, wrap_image_processor
from vlm_adapters_qwen.adapter import resized_layout

__all__ = ["ModelInputs", "QwenImageProcessorWrapper", "wrap_image_processor"]

IMAGE_PROCESSORS = ("Qwen2VLImageProcessor",)
"""Prefixes of class names: one class with several backends serves Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""


class ModelInputs(TypedDict):
    """The images as the model's forward takes them."""

    pixel_values: Tensor
    """float32 `(sum of gh*gw, C*T*p*p)`: the patches of all images in merge-block order."""
    image_grid_thw: Tensor
    """int64 `(N, 3)`: per image 1, `gh` and `gw` patches."""


class QwenImageProcessorWrapper(ImageProcessorWrapper):
    """The separate-processor interface over the processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL.

    Args:
        processor: A combined Qwen processor, or its image processor. Its settings are read at every call.

    Raises:
        CheckpointError: It is a processor of another family.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        classes = {base.__name__ for base in type(self.image_processor).__mro__}
        if not any(name.startswith(IMAGE_PROCESSORS) for name in classes):
            raise CheckpointError(
                f"{type(processor).__name__} is not a processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. Give one, or call "
                "wrap_image_processor, which passes others through."
            )

    @override
    def layout(self, size: tuple[int, int]) -> ImageLayout:
        cell = self.image_processor.patch_size * self.image_processor.merge_size
        if not self.image_processor.do_resize:
            self._check_size(*size)
            return ImageLayout(size, size, size, (size[0] // cell, size[1] // cell))
        limits = dict(self.image_processor.size)
        if limits.get("shortest_edge") is None or limits.get("longest_edge") is None:
            raise ImageError(
                f"{type(self.image_processor).__name__} has the size {limits}, and a size with shortest_edge and "
                "longest_edge (pixels in all) is needed. Correct its settings."
            )
        return resized_layout(size, cell=cell, min_pixels=limits["shortest_edge"], max_pixels=limits["longest_edge"])

    @override
    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        values = self._processed(images)
        for index, image in enumerate(images):
            height, width = self.layout((image.height, image.width)).canvas
            if values[index].shape[1:] != (height, width):
                resized = image.resize((width, height), Image.Resampling.BICUBIC)
                (values[index],) = self._processed([resized], do_resize=False)
        return values

    def to_model_inputs(self, pixel_values: Sequence[Tensor] | ProcessedImages) -> ModelInputs:
        """Turn images back into what the model takes, bit for bit as the processor gives it.

        Args:
            pixel_values: Images `(3, H, W)` as `preprocess` gives them, of one or several calls; or all it returned.

        Raises:
            ImageError: The list is empty, or an image is not `(3, H, W)` with sides of whole cells.
        """
        values = list(pixel_values["pixel_values"] if isinstance(pixel_values, Mapping) else pixel_values)
        if not values:
            raise ImageError("There are no pixel values: the list is empty. Give at least one image.")
        for value in values:
            if not isinstance(value, Tensor) or value.ndim != 3 or value.shape[0] != 3 or not value.is_floating_point():
                raise ImageError(
                    f"Pixel values must be float tensors (3, H, W), got {_described(value)}. Give those of preprocess."
                )
            self._check_size(value.shape[1], value.shape[2])
        patch = self.image_processor.patch_size
        grids = [[1, value.shape[1] // patch, value.shape[2] // patch] for value in values]
        return {
            "pixel_values": torch.cat([self._patches(value) for value in values]),
            "image_grid_thw": torch.tensor(grids, device=values[0].device),
        }

    def _processed(self, images: Sequence[Image.Image], **options: Any) -> list[Tensor]:
        features = self.image_processor.preprocess(list(images), return_tensors="pt", **options)
        grids = [(gh, gw) for _, gh, gw in features["image_grid_thw"].tolist()]
        patches = features["pixel_values"].float().split([gh * gw for gh, gw in grids])
        return [self._image(rows, grid) for rows, grid in zip(patches, grids, strict=True)]

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


def _described(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
