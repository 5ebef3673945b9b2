"""The Qwen-VL family: native resolution, no padding, cells of patch x merge pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from qwen_vl_utils import process_vision_info, smart_resize
from transformers import (
    AutoModel,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerTextModel,
    Qwen3OmniMoeTextConfig,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerTextModel,
)
from typing_extensions import override

from vlm_adapters import ImageLayout, TransformersBackbone
from vlm_adapters.errors import ImageError, OptionError
from vlm_adapters.geometry import Size
from vlm_adapters.hf import NativeResolutionBackbone

# Language models that transformers builds as a part of others only; to count memory, they are built alone.
AutoModel.register(Qwen2_5OmniTextConfig, Qwen2_5OmniThinkerTextModel, exist_ok=True)
AutoModel.register(Qwen3OmniMoeTextConfig, Qwen3OmniMoeThinkerTextModel, exist_ok=True)


class QwenAdapter(NativeResolutionBackbone):
    """Adapter for Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5.

    Args:
        model: A model of the family, such as `Qwen2_5_VLForConditionalGeneration`.
        processor: The processor of the same checkpoint.
        min_pixels: Smallest area that an image is resized to. A larger value gives a finer grid.
        max_pixels: Largest area that an image is resized to.
        checkpoint: Directory or hub id of the checkpoint, for `info`.
        revision: Commit of the checkpoint, for `info`.
    """

    attention_pattern = "causal"
    options = ("min_pixels", "max_pixels")
    batch_windows = True

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        checkpoint: str = "",
        revision: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint=checkpoint, revision=revision)
        size = processor.image_processor.size
        self.min_pixels = size["shortest_edge"] if min_pixels is None else min_pixels
        self.max_pixels = size["longest_edge"] if max_pixels is None else max_pixels
        numbers = all(isinstance(limit, int | float) for limit in (self.min_pixels, self.max_pixels))
        cell = (processor.image_processor.patch_size * processor.image_processor.merge_size) ** 2
        if not (numbers and cell <= self.min_pixels <= self.max_pixels):
            raise OptionError(
                f"min_pixels={self.min_pixels!r} and max_pixels={self.max_pixels!r} do not fit. Give "
                f"{cell} (one cell) <= min_pixels <= max_pixels."
            )

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        images = self.processor.image_processor
        cell = images.patch_size * images.merge_size
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return [[resized_layout(size, cell=cell, **limits)] for size in sizes]

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        # `qwen_vl_utils` resizes, and the processor only cuts into patches: images are resized once.
        resized = [
            process_vision_info(self._messages(of_prompt), image_patch_size=self._patch)[0] for of_prompt in images
        ]
        return super().process_images(resized, do_resize=False, **options)

    @property
    def _patch(self) -> int:
        patch: int = self.processor.image_processor.patch_size
        return patch

    def _messages(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """The images of a prompt in the form that `qwen_vl_utils` reads."""
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return [{"role": "user", "content": [{"type": "image", "image": image, **limits} for image in images]}]


class Qwen2_5OmniAdapter(QwenAdapter):  # noqa: N801 - the name in transformers
    """Adapter for the thinker of Qwen2.5-Omni, which sees and writes; the parts that speak are not loaded."""

    auto_model = "Qwen2_5OmniThinkerForConditionalGeneration"
    config_class = Qwen2_5OmniThinkerConfig
    video_layouts = TransformersBackbone.video_layouts  # its videos have sound


class Qwen3OmniAdapter(QwenAdapter):
    """Adapter for the thinker of Qwen3-Omni."""

    auto_model = "Qwen3OmniMoeThinkerForConditionalGeneration"
    config_class = Qwen3OmniMoeThinkerConfig
    video_layouts = TransformersBackbone.video_layouts


def resized_layout(size: tuple[int, int], *, cell: int, min_pixels: int, max_pixels: int) -> ImageLayout:
    """The layout of an image `(H, W)` as `qwen_vl_utils` resizes it: one grid that covers the image exactly.

    Args:
        size: `(H, W)` of the image.
        cell: Pixels along each side of a cell.
        min_pixels: Smallest area that an image is resized to.
        max_pixels: Largest area that an image is resized to.

    Raises:
        ImageError: The rule refuses the image, or the limits.
    """
    try:
        height, width = smart_resize(*size, factor=cell, min_pixels=min_pixels, max_pixels=max_pixels)
    except (ValueError, AssertionError) as error:  # too long and narrow, or limits that exclude each other
        raise ImageError(
            f"An image of {size[1]} x {size[0]} pixels cannot be resized to min_pixels={min_pixels}, "
            f"max_pixels={max_pixels}: {error}. Crop it, or give a larger max_pixels."
        ) from error
    return ImageLayout(size, (height, width), (height, width), (height // cell, width // cell))
