"""The Qwen-VL family: native resolution, no padding, cells of patch x merge pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from qwen_vl_utils import process_vision_info
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from vlm_adapters import BackboneInputs, ImageError, ImageGrid, OptionError, PromptError, TransformersBackbone


class QwenAdapter(TransformersBackbone):
    """Adapter for Qwen2.5-VL.

    Args:
        model: `Qwen2_5_VLForConditionalGeneration`.
        processor: Its processor.
        min_pixels: Smallest area that a picture is resized to. A larger value gives a finer grid.
        max_pixels: Largest area that a picture is resized to.
        checkpoint: Where it came from, for `info`.
        revision: Its commit, for `info`.
    """

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
        if not (numbers and self.cell[0] * self.cell[1] <= self.min_pixels <= self.max_pixels):
            raise OptionError(
                f"min_pixels={self.min_pixels!r} and max_pixels={self.max_pixels!r} do not fit. Give "
                f"{self.cell[0] * self.cell[1]} (one cell) <= min_pixels <= max_pixels."
            )

    @property
    def cell(self) -> tuple[int, int]:
        """Pixels of the resized picture per image token: patch x merge on both sides."""
        side = self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
        return side, side

    def process_pictures(self, pictures: Sequence[Image.Image], **options: Any) -> BatchFeature:
        """Resize with `qwen_vl_utils`, once, then patchify with the processor."""
        content = [
            {"type": "image", "image": picture, "min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
            for picture in pictures
        ]
        try:
            resized, _ = process_vision_info(
                [{"role": "user", "content": content}], image_patch_size=self.processor.image_processor.patch_size
            )
        except ValueError as error:  # too long and narrow for its limits: a side would have no pixel
            sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in pictures)
            raise ImageError(
                f"A picture ({sizes}) cannot be resized to min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: "
                f"{error}. Crop it, or give a larger max_pixels."
            ) from error
        return super().process_pictures(resized, do_resize=False, **options)

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        """One grid per picture, `(gh / merge, gw / merge)`, covering exactly the picture."""
        merge = self.processor.image_processor.merge_size
        sizes = iter((inputs.tensors["image_grid_thw"][:, 1:] // merge).tolist())
        found = []
        for prompt, types in zip(inputs.prompts, inputs.tensors["mm_token_type_ids"], strict=True):
            positions = types.eq(1).nonzero().flatten()
            shapes = [next(sizes) for _ in prompt.pictures]
            counts = [height * width for height, width in shapes]
            if len(positions) != sum(counts):
                raise PromptError(f"The sequence has {len(positions)} image tokens, the pictures need {sum(counts)}.")
            found.append(
                [
                    ImageGrid(tokens.view(*shape), (0.0, 0.0, float(picture.width), float(picture.height)), index)
                    for index, (picture, shape, tokens) in enumerate(
                        zip(prompt.pictures, shapes, positions.split(counts), strict=True)
                    )
                ]
            )
        return found
