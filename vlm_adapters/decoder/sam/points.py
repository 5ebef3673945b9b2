"""Points as prompts of Segment Anything: inside and outside a mask, where a coarse mask is sure of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.geometry import Box

INSIDE, OUTSIDE, FILLER = 1, 0, -1
"""Labels of points, as `segment_anything` writes them; a filler is not a point."""

_GRID = 32
"""Places along each side of a box that are looked at."""

_LEAST_INSIDE, _MOST_OUTSIDE = 0.5, 0.1
"""Shares of the box's highest probability: a place with more is inside, one with less outside."""


@dataclass(frozen=True)
class PointPrompts:
    """As many points for every one of P masks.

    Attributes:
        places: `(P, n, 2)` float32: x, y in pixels of the image.
        labels: `(P, n)` int: `INSIDE` for a point of the mask, `OUTSIDE` for one beside it, `FILLER` for none.
    """

    places: Tensor = field(repr=False)
    labels: Tensor

    @classmethod
    def one_inside(cls, places: Tensor) -> Self:
        """One point inside every mask.

        Args:
            places: `(P, 2)`: x, y in pixels of the image.
        """
        return cls(places[:, None], torch.full((len(places), 1), INSIDE, device=places.device))


def points_in_boxes(probability: Tensor, box: Box, boxes: Tensor, each: int) -> PointPrompts:
    """Choose points in boxes, inside and outside a coarse mask: where it is sure, and far from one another.

    The first is the surest place; each further one is where sureness times distance from the nearest of those before
    it is largest. Where too few places are sure, fillers take the places of points.

    Args:
        probability: `(P, h, w)` of coarse masks, in [0, 1].
        box: Region of the image that they cover.
        boxes: `(P, 4)`: left, top, right, bottom of a box for each mask, in pixels of the image.
        each: Number of points inside, and of points outside.
    """
    probability, boxes = probability.float(), boxes.to(probability.device).float()
    corner, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    centres = _centres(probability.device)
    placed = _sampled(probability, box, corner + centres * extent)
    shares = placed / placed.amax(dim=1, keepdim=True).clamp(min=1e-6)
    inside, is_inside = _spread(shares * (shares >= _LEAST_INSIDE), centres, each)
    outside, is_outside = _spread((1 - shares) * (shares <= _MOST_OUTSIDE), centres, each)
    labels = [torch.where(is_inside, INSIDE, FILLER), torch.where(is_outside, OUTSIDE, FILLER)]
    return PointPrompts(corner + torch.cat([inside, outside], dim=1) * extent, torch.cat(labels, dim=1))


def _centres(device: torch.device) -> Tensor:
    """The places in a box that are looked at, `(_GRID * _GRID, 2)` as x, y from 0 to 1, row by row."""
    steps = (torch.arange(_GRID, device=device) + 0.5) / _GRID
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([across, down], dim=-1).view(-1, 2)


def _sampled(maps: Tensor, box: Box, places: Tensor) -> Tensor:
    """The values of maps `(P, h, w)` over `box` at places `(P, n, 2)`, bilinearly, 0 beyond the box: `(P, n)`."""
    left, top, right, bottom = box
    start, extent = places.new_tensor([left, top]), places.new_tensor([right - left, bottom - top])
    at = 2 * (places - start) / extent - 1
    found = functional.grid_sample(maps[:, None], at[:, None], padding_mode="border", align_corners=False)[:, 0, 0]
    return found.masked_fill((at.abs() > 1).any(dim=-1), 0)


def _spread(sureness: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose of the places `centres (n, 2)`, by `sureness (P, n)`: `(P, count, 2)`, and which of them are sure."""
    distance, chosen, is_sure = torch.ones_like(sureness), [], []
    for number in range(count):
        value, best = (sureness * distance).max(dim=1)
        chosen.append(centres[best])
        is_sure.append(value > 0)
        to_best = (centres - chosen[-1][:, None]).norm(dim=-1)
        distance = torch.minimum(distance, to_best) if number else to_best
    return torch.stack(chosen, dim=1), torch.stack(is_sure, dim=1)
