"""Where things are in an image: boxes, sizes, maps placed by a box, and the frames in which models name places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Box = tuple[float, float, float, float]
"""`(left, top, right, bottom)`."""


Size = tuple[int, int]
"""`(height, width)`, in pixels unless it says otherwise."""


@dataclass(frozen=True)
class CoordinateFrame:
    """The numbers in which a model says where something is; the origin is the image's upper left corner.

    Attributes:
        width: What the right edge of the image is called.
        height: What its lower edge is called.
    """

    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"a frame has a width and a height above 0, got {self.width} x {self.height}")

    def to_image(self, box: Box, size: tuple[int, int]) -> Box:
        """Turn a box of the frame into pixels of the image.

        Args:
            box: In the frame.
            size: `(H, W)` of the image.
        """
        return _scaled(box, size[1] / self.width, size[0] / self.height)

    def from_image(self, box: Box, size: tuple[int, int]) -> Box:
        """Turn a box in pixels of the image into the frame: the way back of `to_image`."""
        return _scaled(box, self.width / size[1], self.height / size[0])


def place_map(
    maps: Tensor, box: tuple[float, float, float, float], size: tuple[int, int], *, outside: float = 0.0
) -> Tensor:
    """Place maps over a grid into image coordinates, bilinearly.

    A value of the map belongs to the centre of its cell, a pixel to its own centre. Beyond the outermost cell centres
    the border value continues; pixels outside the box get `outside`, since the grid says nothing of them.

    Args:
        maps: `(..., h, w)` float.
        box: `(left, top, right, bottom)` that the map covers, in pixels of the image.
        size: `(H, W)` of the image.
        outside: Value of the pixels outside the box.

    Returns:
        `(..., H, W)` float32.
    """
    left, top, right, bottom = box
    y = (torch.arange(size[0], device=maps.device, dtype=torch.float32) + 0.5 - top) / (bottom - top)
    x = (torch.arange(size[1], device=maps.device, dtype=torch.float32) + 0.5 - left) / (right - left)
    points = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=-1)
    flat = maps.float().reshape(1, -1, *maps.shape[-2:])
    placed = functional.grid_sample(flat, points[None], mode="bilinear", padding_mode="border", align_corners=False)
    inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))[None, :]
    return placed.masked_fill(~inside, outside).reshape(*maps.shape[:-2], *size)


def _scaled(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down
