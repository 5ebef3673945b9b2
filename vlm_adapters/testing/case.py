"""The case that a plugin gives to have its adapter checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter, HasModel
from vlm_adapters.geometry import Box, Size, Span
from vlm_adapters.testing.reference import Reference, TransformersReference

SIZES: tuple[Size, ...] = ((112, 112), (84, 252), (252, 84), (13, 17), (700, 900), (133, 211))
"""Square, 1:3, 3:1, smaller than a cell, larger than a tiny model's limit, odd numbers."""


@dataclass(frozen=True)
class ExpectedGrid:
    """A grid by the published rule of the family.

    Attributes:
        shape: Number of cells, `(h, w)`.
        box: Region `(left, top, right, bottom)` of the grid, in pixels of the upright image.
        name: Which of the backbone's grids it is.
        rows: `(top, bottom)` of every row of cells in pixels of the image; empty where rows divide the box evenly.
        columns: `(left, right)` of every column of cells, likewise.
        frames: The first frame of a video that it shows, and the one after the last.
    """

    shape: tuple[int, int]
    box: Box
    name: str = "fine"
    rows: tuple[Span, ...] = ()
    columns: tuple[Span, ...] = ()
    frames: tuple[int, int] = (0, 1)

    def cell_box(self, row: int, column: int) -> Box:
        """Region `(left, top, right, bottom)` of one cell, in pixels of the image."""
        left, top, right, bottom = self.box
        height, width = (bottom - top) / self.shape[0], (right - left) / self.shape[1]
        above, below = self.rows[row] if self.rows else (top + row * height, top + (row + 1) * height)
        before, behind = self.columns[column] if self.columns else (left + column * width, left + (column + 1) * width)
        return before, above, behind, below


class LoadAdapter(Protocol):
    """Builds a new adapter over a tiny model on the CPU: the same weights at every call, within about a second."""

    def __call__(self, *, dtype: torch.dtype = ..., attention: str = ...) -> BackboneAdapter:
        """Build the adapter.

        Args:
            dtype: Dtype of the weights: `torch.float32` or `torch.bfloat16`.
            attention: Kernel of the language model: `"sdpa"` or `"eager"`.
        """
        ...


@dataclass(frozen=True)
class AdapterCase:
    """An adapter to check, and an oracle that does not use it.

    Attributes:
        name: Name in reports.
        load: A function at the top level of a module, where a spawned process finds it.
        expected_grids: `(H, W)` of an image that is alone in its prompt -> its grids in the order of `info.grids`,
            written from the family's published rule without calling the adapter or its processor.
        sizes: Images to try.
        several_images: Whether the family takes prompts with more than one image.
        expected_beside_others: The rule for an image beside others; None where it is the same.
        expected_video: `(H, W)` and number of frames of a video -> its grids in order of time, by the published rule;
            None where the family takes no video.
        video_alone: Why a batch cannot hold images beside videos; empty where it can.
        pixels_differ: Why the pixels are not those of the stock processor; empty where they are.
        ids_differ: Why the tokens are not those of the stock processor; empty where they are.
        reference: Direct access to the model behind the adapter.
        device: Device of the checks; see `on`.
        dtype: Dtype of the weights; see `on`.
    """

    name: str
    load: LoadAdapter
    expected_grids: Callable[[Size], Sequence[ExpectedGrid]]
    sizes: tuple[Size, ...] = SIZES
    several_images: bool = True
    expected_beside_others: Callable[[Size], Sequence[ExpectedGrid]] | None = None
    expected_video: Callable[[Size, int], Sequence[ExpectedGrid]] | None = None
    video_alone: str = ""
    pixels_differ: str = ""
    ids_differ: str = ""
    reference: Reference = field(default_factory=TransformersReference)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def on(self, device: str, dtype: torch.dtype) -> AdapterCase:
        """The same case on another device and in another precision, for the adapter and its oracle alike.

        Below float32, results are compared on average, within 10 % of their mean size (gradients 25 %), since adapter
        and oracle round in different places.
        """
        return replace(self, load=_LoadOn(self.load, device, dtype), device=device, dtype=dtype)


@dataclass(frozen=True)
class _LoadOn:
    """Loads a case's adapter on another device; can be pickled if the function of the case can."""

    load: LoadAdapter
    device: str
    dtype: torch.dtype

    def __call__(self, *, dtype: torch.dtype | None = None, attention: str = "sdpa") -> BackboneAdapter:
        adapter = self.load(dtype=dtype or self.dtype, attention=attention)
        cast("HasModel", adapter).model.to(self.device)
        return adapter
