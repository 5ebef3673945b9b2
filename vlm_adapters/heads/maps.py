"""From the attention of a few heads to one map per phrase, without training: pure functions of tensors.

The map of a head for a phrase is divided by its map for a sentence that says nothing about the image, so that only what
the phrase adds is left. In shapes, `C` is heads of any layers, `P` phrases, and `h, w` grid cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.request import Head
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.decoder.unet import normalise
from vlm_adapters.geometry import Box, Size, place_map

SINK_RATIO = 10.0
"""A cell is a sink if at least half of the heads give it this many times its even share of the neutral map."""

SINK_SHARE = 0.5
"""A cell is a sink, too, if a quarter of the heads give it this share of their neutral map."""

SMALLEST_PART_RATIO = 0.5
"""Parts of a map with less than this share of the largest part's sum are left out of the mask."""

MAX_PROMINENCE = 1e6
"""Prominence of a peak over an otherwise even map."""


def head_maps(extracted: Sequence[Grids], heads: Sequence[Head] | None = None) -> tuple[Tensor, Box]:
    """Join the grids of one image: one map per head over its last, finest grid.

    Args:
        extracted: Grids of one image, in the adapter's order.
        heads: Heads whose maps are wanted, in their order; None takes all, channel = layer * n + head.

    Returns:
        `(P, C, h, w)` float32, every map with sum 1 or all zero: the mean of the head's shares in all grids; and the
        box that it covers, in pixels of the image.

    Raises:
        DecoderError: The image has no grid, or a head was not extracted.
    """
    channels, box = stack_channels(extracted, heads)
    return normalise(channels).unflatten(1, (len(extracted), -1)).mean(dim=1), box


def find_sinks(neutral: Tensor) -> Tensor:
    """Find the cells that attract attention whatever the text is.

    Args:
        neutral: `(C, h, w)` maps of a sentence that says nothing about the image, not negative.

    Returns:
        `(h, w)` bool: where at least half of the heads put at least `SINK_RATIO` times the cell's even share, or a
        quarter of them `SINK_SHARE` of all they have, too.
    """
    shares = normalise(neutral[None])[0]
    high = shares * neutral[0].numel() >= SINK_RATIO
    most = high & (shares >= SINK_SHARE)
    return (high.float().mean(dim=0) >= 0.5) | (most.float().mean(dim=0) >= 0.25)


def relative_maps(maps: Tensor, neutral: Tensor) -> Tensor:
    """Divide the maps of phrases by those of a neutral sentence; sinks get the mean of their neighbours.

    A cell's share of its map is divided by its share of the neutral map plus an even share, so that cells without
    neutral attention cannot stand out through noise.

    Args:
        maps: `(P, C, h, w)` attention, not negative, of any scale.
        neutral: `(C, h, w)`, the same heads on the same image.

    Returns:
        `(P, C, h, w)` float32, not negative.
    """
    kept = ~find_sinks(neutral)
    shares, neutral_shares = normalise(maps * kept), normalise(neutral[None] * kept)
    relative = shares / (neutral_shares + 1 / neutral[0].numel())
    if bool(kept.all()):
        return relative
    around = functional.avg_pool2d(relative, 3, stride=1, padding=1, count_include_pad=False)
    share_kept = functional.avg_pool2d(kept.float()[None, None], 3, stride=1, padding=1, count_include_pad=False)
    return torch.where(kept, relative, around / share_kept.clamp(min=1 / 9))


def turn_back(maps: Tensor, box: Box, size: Size, onto: Box, shape: Size) -> Tensor:
    """Place maps of an image that was upside down on the cells of a grid of the upright image.

    Args:
        maps: `(P, C, h, w)` of the image that was turned.
        box: What they cover, in pixels of that image.
        size: `(H, W)` of the image.
        onto: What the grid of the upright image covers.
        shape: `(h, w)` of that grid.
    """
    height, width = size
    turned = width - box[2], height - box[3], width - box[0], height - box[1]
    maps = maps.flip((-2, -1))
    if turned == onto and maps.shape[-2:] == shape:
        return maps
    across, down = (onto[2] - onto[0]) / shape[1], (onto[3] - onto[1]) / shape[0]
    x0, y0, x1, y1 = turned
    return place_map(
        maps, ((x0 - onto[0]) / across, (y0 - onto[1]) / down, (x1 - onto[0]) / across, (y1 - onto[1]) / down), shape
    )


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps `(..., h, w)` with a Gaussian of `sigma` cells, 0 for none; beyond the border its value continues."""
    reach = math.ceil(3 * sigma)
    if not reach or not maps.numel():
        return maps
    steps = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    flat = functional.conv2d(functional.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return flat.view(maps.shape)


def combine(relative: Tensor, weights: Sequence[float], sigma: float) -> Tensor:
    """Average the heads' maps `(P, C, h, w)` by `C` positive weights to `(P, h, w)`, smoothed by `sigma` cells."""
    of_heads = torch.tensor(weights, device=relative.device, dtype=relative.dtype)
    return smooth((relative * of_heads[:, None, None]).sum(dim=1) / of_heads.sum(), sigma)


def prominence(maps: Tensor) -> Tensor:
    """Measure how far the peak of each map is above its median, in median absolute deviations.

    Args:
        maps: `(..., h, w)`.

    Returns:
        `(...)` float32, from 0 (even) to `MAX_PROMINENCE`.
    """
    flat = maps.float().flatten(-2)
    middle = flat.median(dim=-1, keepdim=True).values
    above = flat.amax(dim=-1) - middle[..., 0]
    spread = (flat - middle).abs().median(dim=-1).values
    ratio = (above / spread.clamp(min=1e-12)).clamp(max=MAX_PROMINENCE)
    return torch.where(above > 1e-6 * middle[..., 0].abs(), ratio, torch.zeros_like(ratio))


def heights(maps: Tensor) -> Tensor:
    """Scale each map `(..., h, w)` so that its median is 0 and its peak 1; lower values and even maps become 0."""
    flat = maps.float().flatten(-2)
    middle = flat.median(dim=-1).values[..., None, None]
    top = flat.amax(dim=-1)[..., None, None]
    return ((maps.float() - middle) / (top - middle).clamp(min=1e-12)).clamp(min=0)


def label_parts(inside: Tensor) -> Tensor:
    """Number the connected parts of masks; cells are connected at their sides and corners.

    Args:
        inside: `(N, h, w)` bool.

    Returns:
        `(N, h, w)` long: 0 outside; inside, one plus the index of one cell of the part, the same in all its cells.
    """
    cells = inside[0].numel() if len(inside) else 0
    numbers = torch.arange(1, cells + 1, device=inside.device, dtype=torch.float32)
    labels = numbers.view(inside.shape[1:]) * inside if cells else inside.float()
    while labels.numel():
        spread = functional.max_pool2d(labels, 3, stride=1, padding=1) * inside
        if torch.equal(spread, labels):
            break
        labels = spread
    return labels.long()


def part_sums(labels: Tensor, values: Tensor) -> Tensor:
    """Sum `values (N, h, w)` over every part of `labels (N, h, w)`: `(N, h * w + 1)`, by label."""
    sums = torch.zeros(len(labels), labels[0].numel() + 1 if len(labels) else 1, device=values.device)
    return sums.scatter_add_(1, labels.flatten(1), values.float().flatten(1))


def keep_large_parts(maps: Tensor, threshold: float) -> Tensor:
    """Set to 0 the parts of each map above a threshold whose sum is small compared with that of the largest part.

    Args:
        maps: `(P, h, w)` of `heights`.
        threshold: Threshold in [0, 1).
    """
    inside = maps > threshold
    labels = label_parts(inside)
    sums = part_sums(labels, maps * inside)
    small = sums < SMALLEST_PART_RATIO * sums.amax(dim=1, keepdim=True)
    return maps.masked_fill(inside & small.gather(1, labels.flatten(1)).view(labels.shape), 0)
