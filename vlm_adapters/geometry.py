"""Geometry of images: boxes, sizes, maps placed by a box, and the coordinate frames in which models answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.errors import NoGridError

Box = tuple[float, float, float, float]
"""`(left, top, right, bottom)`, in pixels of the upright image unless stated otherwise."""

Span = tuple[float, float]
"""Where something starts and ends along one side, in pixels unless stated otherwise."""

Region = tuple[int, int, int, int]
"""`(left, top, right, bottom)` in whole pixels, right and bottom excluded."""

Size = tuple[int, int]
"""`(height, width)`, in pixels unless stated otherwise."""

_PIXELS_AT_ONCE = 2**18
"""Pixels of a map that are sampled at once: as many as stay in a processor's cache with their coordinates."""

_MORE_ON_DEVICES = 16
"""How many times as many are sampled at once on a device, where every call costs."""


@dataclass(frozen=True)
class CoordinateFrame:
    """The coordinates in which a model answers where something is; the origin is the image's upper left corner.

    Attributes:
        width: The x coordinate of the right edge of the image.
        height: The y coordinate of its lower edge.
    """

    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"a frame has a width and a height above 0, got {self.width} x {self.height}")

    def to_image(self, box: Box, size: Size) -> Box:
        """Convert a box from the frame to pixels of the image.

        Args:
            box: A box in coordinates of the frame.
            size: `(H, W)` of the image.
        """
        return _scaled(box, size[1] / self.width, size[0] / self.height)

    def from_image(self, box: Box, size: Size) -> Box:
        """Convert a box from pixels of the image to the frame: the inverse of `to_image`."""
        return _scaled(box, self.width / size[1], self.height / size[0])


THOUSANDTHS = CoordinateFrame(1000, 1000)
"""The frame of models that divide both sides of an image by 1000, whatever its size."""


def place_map(
    maps: Tensor, box: Box | None, size: Size, *, outside: float = 0.0, region: Region | None = None
) -> Tensor:
    """Resample maps over a grid to the pixels of an image, bilinearly.

    The values of a map lie at the centres of its cells, and pixels are sampled at their centres. Beyond the outermost
    cell centres the border value continues; pixels outside the box get `outside`, since the grid does not cover them.

    Args:
        maps: `(..., h, w)` float.
        box: The region of the image that the maps cover, in pixels; None is refused.
        size: `(H, W)` of the image.
        outside: Value of the pixels outside the box.
        region: The pixels that are wanted; None for all.

    Returns:
        `(..., H, W)` float32; with a region, what it would cut out of that.

    Raises:
        NoGridError: There is no box: the tokens have no places in the image.

    Examples:
        >>> import torch
        >>> from vlm_adapters import place_map
        >>> map_of_two_cells = torch.tensor([[0.0, 1.0]])
        >>> place_map(map_of_two_cells, box=(0, 0, 4, 1), size=(1, 6))  # the image goes on to the right of the grid
        tensor([[0.0000, 0.2500, 0.7500, 1.0000, 0.0000, 0.0000]])
    """
    if box is None:
        raise NoGridError
    left, top, right, bottom = box
    y = (torch.arange(size[0], device=maps.device, dtype=torch.float32) + 0.5 - top) / (bottom - top)
    x = (torch.arange(size[1], device=maps.device, dtype=torch.float32) + 0.5 - left) / (right - left)
    if region is not None:
        y, x = y[region[1] : region[3]], x[region[0] : region[2]]
    at_once = _PIXELS_AT_ONCE * (1 if maps.device.type == "cpu" else _MORE_ON_DEVICES)
    rows = max(at_once // max(len(x), 1), 1)
    if len(y) <= rows:
        return _place_rows(maps, y, x, outside)
    rows = -(-rows // torch.get_num_threads()) * torch.get_num_threads()
    placed = torch.empty(*maps.shape[:-2], len(y), len(x), device=maps.device)
    for first in range(0, len(y), rows):
        placed[..., first : first + rows, :] = _place_rows(maps, y[first : first + rows], x, outside)
    return placed


def resample_evenly(maps: Tensor, axis: int, spans: Sequence[Span], within: Span) -> Tensor:
    """Resample maps along one axis from cells at given places to as many that divide a span evenly, linearly.

    Args:
        maps: Float tensor with a value per cell along the axis.
        axis: The axis.
        spans: Start and end of every cell, ascending.
        within: Start and end of what the resampled cells divide.
    """
    if (cells := len(spans)) == 1:
        return maps
    centres = torch.tensor([(start + end) / 2 for start, end in spans], device=maps.device, dtype=torch.float32)
    start, end = within
    wanted = start + (torch.arange(cells, device=maps.device) + 0.5) * ((end - start) / cells)
    above = torch.searchsorted(centres, wanted).clamp(1, cells - 1)
    below = above - 1
    share = ((wanted - centres[below]) / (centres[above] - centres[below])).clamp(0, 1)
    shape = [1] * maps.ndim
    shape[axis] = cells
    share = share.to(maps.dtype).view(shape)
    return maps.index_select(axis, below) * (1 - share) + maps.index_select(axis, above) * share


def region_of(cells: Tensor, box: Box, size: Size) -> Region | None:
    """The pixels that cells of a map have a share in when it is placed: where values of other cells alone stay out.

    Args:
        cells: `(h, w)` bool.
        box: The region of the image that the map covers, in pixels.
        size: `(H, W)` of the image.

    Returns:
        The smallest rectangle with all of these pixels, or one a pixel larger; None if there are none.
    """
    left, top, right, bottom = box
    sides = []
    for taken, pixels, first, last in ((cells.any(0), size[1], left, right), (cells.any(1), size[0], top, bottom)):
        found = taken.nonzero().flatten().tolist()
        if not found:
            return None
        of_pixel = len(taken) / (last - first)  # cells
        begin = floor(first + (found[0] - 0.5) / of_pixel - 0.5)
        end = ceil(first + (found[-1] + 1.5) / of_pixel - 0.5) + 1
        sides.append((max(begin, floor(first), 0), min(end, ceil(last), pixels)))
    (x0, x1), (y0, y1) = sides
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def resize_box(box: Box, before: Size, after: Size) -> Box:
    """Convert a box in pixels of an image to pixels of the same image at another size."""
    return _scaled(box, after[1] / before[1], after[0] / before[0])


def _place_rows(maps: Tensor, y: Tensor, x: Tensor, outside: float) -> Tensor:
    """Sample maps `(..., h, w)` at the points `y (H,)`, `x (W,)`, in [0, 1] where the maps reach: `(..., H, W)`."""
    bands = torch.get_num_threads()  # torch divides batches among threads, and nothing else
    bands = bands if len(y) % bands == 0 else 1
    points = torch.empty(len(y), len(x), 2, device=maps.device)
    points[..., 0], points[..., 1] = 2 * x - 1, (2 * y - 1)[:, None]
    flat = maps.float().reshape(1, -1, *maps.shape[-2:]).expand(bands, -1, -1, -1)
    placed = functional.grid_sample(
        flat,
        points.view(bands, len(y) // bands, len(x), 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    placed = placed.transpose(0, 1).reshape(*maps.shape[:-2], len(y), len(x))
    beyond_y, beyond_x = (y < 0) | (y > 1), (x < 0) | (x > 1)
    if maps.device.type == "cpu" and not (beyond_y.any() or beyond_x.any()):
        return placed
    return placed.masked_fill(beyond_y[:, None] | beyond_x[None, :], outside)


def _scaled(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down
