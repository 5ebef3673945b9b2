"""Images processed apart from text: one interface over the image processors of all families.

A dataset pipeline written for separate image processors expects `preprocess(image)` to give an image `(3, H, W)` and
how it was resized and padded. The processors of transformers give different tensors for every family instead. A plugin
wraps them; `wrap_image_processor` finds the wrapper by the processor's class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypedDict

from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.errors import BackboneError, ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.sizes import check_layouts
from vlm_adapters.images import ImageSource, load_image
from vlm_adapters.limits import DEFAULT_LIMITS, Limits
from vlm_adapters.registry.discovery import list_adapters, wrapper_class
from vlm_adapters.registry.versions import typed_errors


class Padding(TypedDict):
    """Pixels added around the resized image."""

    before_height: int
    after_height: int
    before_width: int
    after_width: int


class MetaData(TypedDict):
    """How an image became its pixel values; sizes are `(height, width)` in pixels.

    `image_shape` is the size after the resize, `padded_shape` the same after padding, `original_shape` the size of the
    upright image, and `scale_factor` is `image_shape / original_shape` for height and width.
    """

    image_shape: Size
    padded_shape: Size
    padding: Padding
    scale_factor: tuple[float, float]
    original_shape: Size


class ProcessedImages(TypedDict):
    """Images as separate-processor pipelines take them; one entry of every list per image.

    `pixel_values` holds float32 `(3, H, W)`, normalised with the processor's mean and deviation, and `image_sizes`
    their `(H, W)`.
    """

    pixel_values: list[Tensor]
    meta_datas: list[MetaData]
    image_sizes: list[Size]


class ImageProcessorWrapper(ABC):
    """The separate-processor interface over one family's processor.

    Attributes:
        processor: The wrapped processor. Its settings are read at every call.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    @property
    def image_processor(self) -> Any:
        """The image processor inside a combined processor, or the wrapped processor itself."""
        return getattr(self.processor, "image_processor", self.processor)

    @abstractmethod
    def layout(self, size: Size) -> ImageLayout:
        """Describe how an image `(H, W)` is resized and padded.

        Raises:
            ImageError: The processor takes no image of this size.
        """

    @abstractmethod
    def pixel_values(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """Resize, pad and normalise upright RGB images: one float32 tensor `(3, H, W)` each.

        Raises:
            ImageError: The processor refuses an image.
        """

    def preprocess(
        self, images: ImageSource | Sequence[ImageSource], limits: Limits = DEFAULT_LIMITS
    ) -> ProcessedImages:
        """Process images as the family's processor does.

        Args:
            images: An image in any form that `load_image` takes, or a list or tuple of them, of any sizes.
            limits: What of images is accepted.

        Raises:
            ImageError: The list is empty, an image cannot be used, or the processor refuses its size.
            BackboneError: The processor raised an error.
        """
        sources: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        if not sources:
            raise ImageError("The list of images is empty. Give at least one image.")
        upright = [load_image(source, limits) for source in sources]
        with typed_errors(f"The processor {type(self.processor).__name__}", BackboneError):
            sizes = [(image.height, image.width) for image in upright]
            layouts = [self.layout(size) for size in sizes]
            check_layouts([[layout] for layout in layouts], sizes, limits)
            values = self.pixel_values(upright)
            return {
                "pixel_values": values,
                "meta_datas": [_meta_data(layout) for layout in layouts],
                "image_sizes": [(value.shape[1], value.shape[2]) for value in values],
            }


def wrap_image_processor(processor: Any) -> Any:
    """Give a processor the separate-processor interface.

    Args:
        processor: Any object that a pipeline uses as a processor.

    Returns:
        The wrapper of the plugin that names a class of the processor or of its image processor in
        `AdapterSpec.image_processors`. Every other object, a wrapper included, is returned unchanged.
    """
    if isinstance(processor, ImageProcessorWrapper):
        return processor
    classes = {
        base.__name__
        for part in (processor, getattr(processor, "image_processor", None))
        for base in type(part).__mro__
    }
    classes |= {name.removesuffix("Fast").removesuffix("Pil") for name in classes}
    for entry in list_adapters():
        if entry.broken or not entry.spec or not classes & set(entry.spec.image_processors):
            continue
        if entry.ready_spec().wrapper:
            return wrapper_class(entry)(processor)
    return processor


def _meta_data(layout: ImageLayout) -> MetaData:
    height, width = (round(length) for length in layout.resized)
    top, left = (round(length) for length in layout.offset)
    return {
        "image_shape": (height, width),
        "padded_shape": layout.canvas,
        "padding": {
            "before_height": top,
            "after_height": layout.canvas[0] - top - height,
            "before_width": left,
            "after_width": layout.canvas[1] - left - width,
        },
        "scale_factor": (height / layout.image[0], width / layout.image[1]),
        "original_shape": layout.image,
    }
