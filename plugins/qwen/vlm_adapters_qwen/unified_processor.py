"""Qwen's image processors behind the interface of pipelines that process pictures apart from text.

Such a pipeline wants pictures, `(3, H, W)`, and how each was resized and padded. Qwen's processors give flat patches of
all pictures in one tensor instead. The wrapper lets the processor do its work and only rearranges: `preprocess` puts
the patches back where they stand in the picture, `to_model_inputs` takes them out again. No pixel is computed twice, so
the way there and back gives the processor's own output, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard, TypeVar

import torch
from torch import Tensor

from vlm_adapters import load_image
from vlm_adapters.errors import CheckpointError, ImageError

if TYPE_CHECKING:
    from vlm_adapters.images import ImageSource

T = TypeVar("T")

_PROCESSOR_CLASSES = frozenset({"Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"})
"""One class with several backends serves Qwen2-VL, Qwen2.5-VL and Qwen3-VL; not every release has all of them."""


class Padding(TypedDict):
    """Pixels added around the resized picture."""

    before_height: int
    after_height: int
    before_width: int
    after_width: int


class MetaData(TypedDict):
    """How a picture became its pixel values; sizes are `(height, width)` in pixels.

    `image_shape` is the size after the resize, `padded_shape` the same after padding, `original_shape` the size of the
    upright picture, and `scale_factor` is `image_shape / original_shape` for height and width.
    """

    image_shape: tuple[int, int]
    padded_shape: tuple[int, int]
    padding: Padding
    scale_factor: tuple[float, float]
    original_shape: tuple[int, int]


class ProcessedImages(TypedDict):
    """Pictures as separate-processor pipelines take them; one entry of every list per picture.

    `pixel_values` holds float32 `(3, H, W)`, normalised with the processor's mean and deviation, and `image_sizes`
    their `(H, W)`.
    """

    pixel_values: list[Tensor]
    meta_datas: list[MetaData]
    image_sizes: list[tuple[int, int]]


class ModelInputs(TypedDict):
    """What the model's forward takes of the pictures.

    `pixel_values` is float32 `(sum of gh*gw, C*T*p*p)`: patches of all pictures in merge-block order. `image_grid_thw`
    is int64 `(N, 3)`: per picture 1, `gh` and `gw` patches.
    """

    pixel_values: Tensor
    image_grid_thw: Tensor


class QwenImageProcessorWrapper:
    """The separate-processor interface over the processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL.

    Attributes:
        image_processor: The wrapped image processor. Its settings are read at every call.

    Args:
        processor: A combined Qwen processor, or its image processor.

    Raises:
        CheckpointError: It is neither.
    """

    def __init__(self, processor: object) -> None:
        image_processor = getattr(processor, "image_processor", processor)
        if not _is_qwen(image_processor):
            raise CheckpointError(
                f"{type(processor).__name__} is not a processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL. Give one, or call "
                "wrap_image_processor, which passes others through."
            )
        self.image_processor: Any = image_processor

    def preprocess(self, images: ImageSource | Sequence[ImageSource]) -> ProcessedImages:
        """Resize and normalise pictures as the processor does; nothing is padded or cropped.

        Args:
            images: A picture in any form that `load_image` takes, or a list or tuple of them, of any sizes.

        Returns:
            The pictures resized to multiples of patch x merge pixels, and how.

        Raises:
            ImageError: A picture cannot be used, there is none, or the processor refuses its size.
        """
        sources: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        if not sources:
            raise ImageError("There is no picture to preprocess: the list is empty. Give at least one.")
        pictures = [load_image(source) for source in sources]
        if not self.image_processor.do_resize:
            for picture in pictures:
                self._check_size(picture.height, picture.width)
        try:
            features = self.image_processor.preprocess(pictures, return_tensors="pt")
        except ValueError as error:
            sizes = ", ".join(f"{picture.height}x{picture.width}" for picture in pictures)
            raise ImageError(
                f"{type(self.image_processor).__name__} refuses pictures of {sizes} pixels (height x width): {error} "
                "Mend its settings or leave the picture out."
            ) from error
        grids = [(gh, gw) for _, gh, gw in features["image_grid_thw"].tolist()]
        patches = features["pixel_values"].float().split([gh * gw for gh, gw in grids])
        values = [self._picture(rows, grid) for rows, grid in zip(patches, grids, strict=True)]
        sizes_after = [(value.shape[1], value.shape[2]) for value in values]
        return {
            "pixel_values": values,
            "meta_datas": [
                _meta_data(size, (picture.height, picture.width))
                for size, picture in zip(sizes_after, pictures, strict=True)
            ],
            "image_sizes": sizes_after,
        }

    def to_model_inputs(self, pixel_values: Sequence[Tensor] | ProcessedImages) -> ModelInputs:
        """Turn pictures back into what the model takes, equal bit for bit to the processor's own output.

        Args:
            pixel_values: Pictures `(3, H, W)` as `preprocess` gives them, of one or several calls; or all it returned.

        Raises:
            ImageError: There is no picture, or one is not `(3, H, W)` with sides of whole cells.
        """
        values = list(pixel_values["pixel_values"] if isinstance(pixel_values, Mapping) else pixel_values)
        if not values:
            raise ImageError("There are no pixel values: the list is empty. Give at least one picture.")
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

    def _picture(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Picture `(C, H, W)` from its `patches (gh*gw, C*T*p*p)` in merge-block order."""
        patch, merge, time = self._sizes()
        (gh, gw), channels = grid, patches.shape[1] // (time * patch * patch)
        blocks = patches.view(gh // merge, gw // merge, merge, merge, channels, time, patch, patch)
        # A still picture is every frame of its patches: one is enough. (row, column, in block, in patch) -> (C, H, W).
        return blocks[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6).reshape(channels, gh * patch, gw * patch)

    def _patches(self, picture: Tensor) -> Tensor:
        """Patches `(gh*gw, C*T*p*p)` in merge-block order from a picture `(C, H, W)`: the inverse of `_picture`."""
        patch, merge, time = self._sizes()
        channels, height, width = picture.shape
        blocks = picture.reshape(
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
                f"A picture of {height}x{width} pixels (height x width) does not divide into cells of {cell}x{cell}. "
                f"Give sides that are multiples of {cell}, as preprocess does while the processor resizes (do_resize)."
            )


def wrap_image_processor(processor: T) -> T | QwenImageProcessorWrapper:
    """Give a processor the separate-processor interface if it is one of Qwen's without it.

    Args:
        processor: Anything that pipelines call a processor.

    Returns:
        A wrapper around a combined Qwen processor or its image processor; everything else as it is, wrappers included.
    """
    if isinstance(processor, QwenImageProcessorWrapper) or not _is_qwen(
        getattr(processor, "image_processor", processor)
    ):
        return processor
    return QwenImageProcessorWrapper(processor)


def _is_qwen(image_processor: object) -> TypeGuard[Any]:
    return any(base.__name__ in _PROCESSOR_CLASSES for base in type(image_processor).__mro__)


def _meta_data(size: tuple[int, int], original: tuple[int, int]) -> MetaData:
    return {
        "image_shape": size,
        "padded_shape": size,
        "padding": {"before_height": 0, "after_height": 0, "before_width": 0, "after_width": 0},
        "scale_factor": (size[0] / original[0], size[1] / original[1]),
        "original_shape": original,
    }


def _told(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
