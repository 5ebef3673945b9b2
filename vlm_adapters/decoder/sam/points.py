"""Points as prompts of Segment Anything: inside and outside a mask, where a coarse mask is sure of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from vlm_adapters.geometry import Box, place_map

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
    places, labels = [probability.new_zeros(0, 2 * each, 2)], [probability.new_zeros(0, 2 * each).long()]
    for one, corners in zip(probability.float(), boxes.tolist(), strict=True):
        left, top, right, bottom = corners
        across, down = _GRID / (right - left), _GRID / (bottom - top)
        covered = (box[0] - left) * across, (box[1] - top) * down, (box[2] - left) * across, (box[3] - top) * down
        placed = place_map(one, covered, (_GRID, _GRID))
        share = placed / placed.max().clamp(min=1e-6)
        inside, inside_is = _spread(share * (share >= _LEAST_INSIDE), each)
        outside, outside_is = _spread((1 - share) * (share <= _MOST_OUTSIDE), each)
        scale = inside.new_tensor([1 / across, 1 / down])
        places.append((torch.cat([inside, outside]) * scale + inside.new_tensor([left, top]))[None])
        labels.append(
            torch.cat([torch.where(inside_is, INSIDE, FILLER), torch.where(outside_is, OUTSIDE, FILLER)])[None]
        )
    return PointPrompts(torch.cat(places), torch.cat(labels))


def _spread(sureness: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Choose cells of `sureness (h, w)`: their centres `(count, 2)` as x, y in cells, and which of them are chosen."""
    down, across = torch.meshgrid(
        *(torch.arange(n, device=sureness.device) + 0.5 for n in sureness.shape), indexing="ij"
    )
    centres = torch.stack([across, down], dim=-1).view(-1, 2)
    value, distance = sureness.flatten(), torch.ones(sureness.numel(), device=sureness.device)
    chosen, is_sure = [], []
    for number in range(count):
        best = (value * distance).argmax()
        chosen.append(centres[best])
        is_sure.append(value[best] * distance[best] > 0)
        to_best = (centres - centres[best]).norm(dim=1)
        distance = torch.minimum(distance, to_best) if number else to_best
    return torch.stack(chosen), torch.stack(is_sure)
