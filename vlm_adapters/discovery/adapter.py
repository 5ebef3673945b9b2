"""An adapter made of data: the layouts that discovery found, and probes for sizes that no rule covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from typing_extensions import override

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.discovery.discover import Discoverer
from vlm_adapters.discovery.found import FoundLayouts
from vlm_adapters.discovery.layouts import layout_on, layouts_of
from vlm_adapters.discovery.pixels import flat_image
from vlm_adapters.discovery.stock import StockProcessor
from vlm_adapters.errors import ImageError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone

_PER_LINE = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


class DiscoveredBackbone(TransformersBackbone):
    """An adapter over a model whose layouts were discovered.

    Images are processed one by one. A size that was not discovered follows the rule of those that were; without a rule
    it is probed when it is first used, which takes about 80 passes of the vision side in float32.
    """

    found: ClassVar[FoundLayouts]

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, *, checkpoint: str = "", revision: str | None = None
    ) -> None:
        super().__init__(model, processor, checkpoint=checkpoint, revision=revision)
        self._stock = StockProcessor(processor, self.found.placeholder)
        self._known: dict[Size, list[ImageLayout]] = {size: list(of) for size, of in self.found.layouts.items()}
        self._lines: dict[Size, Mapping[str, int]] = {}

    @property
    @override
    def image_token_ids(self) -> frozenset[int]:
        return frozenset(self.found.image_token_ids)

    @override
    def layouts(self, sizes: Sequence[Size]) -> list[list[ImageLayout]]:
        for size in sizes:
            if size not in self._known:
                self._known[size] = self._laid_out(size)
        return [self._known[size] for size in sizes]

    def _laid_out(self, size: Size) -> list[ImageLayout]:
        rule = self.found.rule
        if rule is not None:
            cells = rule.cells or rule.cells_of(self._stock(flat_image(size, 128)))
            return [layout_on(rule.box(size), cells, size, self.found.cell, row_end=rule.row_end)]
        if self.model.dtype != torch.float32 or self.model.device.type == "meta":
            raise ImageError(
                f"The layout of {size[1]} x {size[0]} pixels was not discovered, and probing it needs weights in "
                f"float32. Load with dtype='float32', or run `adapters discover` with --size {size[1]}x{size[0]}."
            )
        discovery = Discoverer(self.model, self.processor).discover(size)
        if not discovery.found:
            raise ImageError(
                f"The layout of {size[1]} x {size[0]} pixels cannot be proven (score {discovery.score:.2f}). "
                "Resize the image to a size that was discovered."
            )
        return layouts_of(discovery.grids, size, self.found.cell)

    @override
    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        singles = [self._stock(image, **options) for of_prompt in images for image in of_prompt]
        joined: dict[str, Any] = {}
        for name, first in singles[0].items():
            values = [single[name] for single in singles]
            if name in _PER_LINE:
                joined[name] = pad_sequence([value[0] for value in values], batch_first=True)
            elif isinstance(first, Tensor):
                joined[name] = torch.cat(_of_one_shape(values))
        return BatchFeature(joined)

    @override
    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        selected = {}
        for name, tensor in features.items():
            parts = tensor.split([self._lines_of(size)[name] for size in sizes])
            selected[name] = torch.cat([parts[index] for index in indices])
        return selected

    def _lines_of(self, size: Size) -> Mapping[str, int]:
        """Number of lines of every tensor of an image."""
        if size not in self._lines:
            features = self._stock(flat_image(size, 128))
            self._lines[size] = {name: len(value) for name, value in features.items() if isinstance(value, Tensor)}
        return self._lines[size]


def _of_one_shape(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors filled with zeros at their ends, so that they can be joined along their first dimension."""
    shape = [max(lengths) for lengths in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    if all(list(tensor.shape[1:]) == shape for tensor in tensors):
        return list(tensors)
    filled = []
    for tensor in tensors:
        missing = [most - length for most, length in zip(shape, tensor.shape[1:], strict=True)]
        filled.append(torch.nn.functional.pad(tensor, [n for most in reversed(missing) for n in (0, most)]))
    return filled
