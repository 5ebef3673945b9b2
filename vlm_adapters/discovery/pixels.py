"""Which place of the image every number in the processor's pixels comes from, found with three images.

A black and a white image show which numbers come from the image at all, and ramps of brightness along each axis spell
their places: resizing, cropping, padding, tiles and patches of every family alike, without knowing the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlm_adapters.errors import BackboneError
from vlm_adapters.geometry import Size

_COLOURS = 3
_SMALLEST_SIDE = 4
_STRAIGHT = 0.05
"""Share of the image by which places may lie off a straight line on average."""


@dataclass(frozen=True)
class PixelMap:
    """The float tensors of one image's features that hold its pixels, and the place of each of their numbers.

    Attributes:
        size: `(H, W)` of the image.
        features: What the processor gives for a grey image of the size.
        scale: For each tensor of pixels by its path, how much a number changes from black to white.
        known: Where a number comes from the image, or lies in padding whose place follows from it.
        places: `(x, y)` of every number, in pixels of the image; 0 where it is not known.
    """

    size: Size
    features: Mapping[str, Any]
    scale: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    places: Mapping[str, tuple[Tensor, Tensor]]


def flat_image(size: Size, grey: int) -> Image.Image:
    """An image `(H, W)` of one grey."""
    return Image.new("RGB", (size[1], size[0]), (grey, grey, grey))


def ramp_image(size: Size, axis: int) -> Image.Image:
    """An image `(H, W)` that grows from black to white along an axis: 0 downwards, 1 to the right."""
    line = (np.arange(size[axis]) + 0.5) / size[axis] * 255
    grey = np.broadcast_to(line[:, None] if axis == 0 else line[None, :], size)
    return Image.fromarray(np.repeat(np.rint(grey).astype(np.uint8)[..., None], _COLOURS, axis=2))


def map_pixels(process: Any, size: Size) -> PixelMap:
    """Find the pixels in the features of images `(H, W)`, and their places.

    Args:
        process: Function from an image to the processor's features.
        size: Size of the images.

    Raises:
        BackboneError: No float tensor of the features changes with the image.
    """
    black, white, grey = (process(flat_image(size, level)) for level in (0, 255, 128))
    right, down = (_tensors(process(ramp_image(size, axis))) for axis in (1, 0))
    dark, light = _tensors(black), _tensors(white)
    scale, known, places = {}, {}, {}
    for path, low in dark.items():
        change = light[path] - low
        varies = change.abs() > 1e-3 * change.abs().max().clamp_min(1e-6)
        if not bool(varies.any()):
            continue
        divisor = torch.where(varies, change, torch.ones_like(change))
        x = torch.where(varies, (right[path] - low) / divisor * size[1], torch.zeros_like(change))
        y = torch.where(varies, (down[path] - low) / divisor * size[0], torch.zeros_like(change))
        if _is_image(low):
            x, y, varies = _extended(x, y, varies, size)
        typical = change[change != 0].mean() if bool((change > 0).all()) else change.abs().max()
        scale[path] = torch.where(change != 0, change, torch.full_like(change, float(typical)))
        known[path], places[path] = varies, (x, y)
    if not scale:
        raise BackboneError(f"No features of {size[1]} x {size[0]} pixels change with the image: {sorted(dark)}.")
    return PixelMap(size, grey, scale, known, places)


def with_pixels(features: Mapping[str, Any], pixels: Mapping[str, Tensor]) -> dict[str, Any]:
    """The features with other pixels, by the paths of `PixelMap`."""
    return {name: _replaced(value, name, pixels) for name, value in features.items()}


def _tensors(features: Mapping[str, Any]) -> dict[str, Tensor]:
    """All float tensors by their path, those in lists included."""
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any]] = list(features.items())
    while waiting:
        path, value = waiting.pop(0)
        if isinstance(value, Tensor) and value.is_floating_point():
            found[path] = value
        elif isinstance(value, list | tuple):
            waiting += [(f"{path}/{index}", each) for index, each in enumerate(value)]
    return found


def _replaced(value: Any, path: str, pixels: Mapping[str, Tensor]) -> Any:
    if path in pixels:
        return pixels[path]
    if isinstance(value, list | tuple):
        return type(value)(_replaced(each, f"{path}/{index}", pixels) for index, each in enumerate(value))
    return value


def _is_image(tensor: Tensor) -> bool:
    return tensor.ndim >= 3 and tensor.shape[-3] == _COLOURS and min(tensor.shape[-2:]) >= _SMALLEST_SIDE


def _extended(x: Tensor, y: Tensor, varies: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Places along the sides of every image of a stack as straight lines, which go on through its padding.

    They stay as they are where they are no straight lines: the tensor holds patches in another order.
    """
    found_x, found_y, known = torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(varies)
    shape = (-1, *x.shape[-3:])
    stack = [part.reshape(shape) for part in (x, y, varies)]
    out = [part.view(shape) for part in (found_x, found_y, known)]
    for index, shown in enumerate(stack[2]):
        across, down = _line(stack[0][index], shown, (0, 1)), _line(stack[1][index], shown, (0, 2))
        if across is None or down is None:
            continue
        lines = across[None, None, :].expand_as(shown), down[None, :, None].expand_as(shown)
        for axis, line in enumerate(lines):
            if float((line - stack[axis][index])[shown].abs().mean()) > _STRAIGHT * size[1 - axis]:
                return x, y, varies
            out[axis][index] = line
        out[2][index] = True
    return found_x, found_y, known


def _line(places: Tensor, shown: Tensor, dims: tuple[int, int]) -> Tensor | None:
    """The straight line of places along the one axis that is not in `dims`; None where too little is shown."""
    count = shown.sum(dims)
    index = torch.arange(len(count), dtype=torch.float64)
    seen = count > 0
    if int(seen.sum()) < 2:
        return None
    means = (places.double() * shown).sum(dims) / count.clamp_min(1)
    i, m = index[seen], means[seen]
    slope = ((i - i.mean()) * (m - m.mean())).sum() / (i - i.mean()).square().sum()
    return (m.mean() + slope * (index - i.mean())).to(places.dtype)
