"""Points are chosen where a coarse mask is sure, on both sides of it, and spread over the box."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm_adapters.decoder.sam.points import FILLER, INSIDE, OUTSIDE, points_in_boxes

WHOLE = (0.0, 0.0, 80.0, 60.0)


def cross() -> Tensor:
    """`(1, 6, 8)`: the third and fourth row and the fourth and fifth column, in cells of ten pixels."""
    mask = torch.zeros(1, 6, 8)
    mask[:, 2:4], mask[:, :, 3:5] = 1, 1
    return mask


def values_at(mask: Tensor, places: Tensor) -> list[float]:
    """The values of the cells of ten pixels that points `(n, 2)` are in."""
    return [float(mask[0, int(y // 10), int(x // 10)]) for x, y in places.tolist()]


def test_points_inside_are_in_the_mask_and_points_outside_beside_it() -> None:
    points = points_in_boxes(cross(), WHOLE, torch.tensor([WHOLE]), 4)
    assert points.places.shape == (1, 8, 2)
    assert points.labels.tolist() == [[INSIDE] * 4 + [OUTSIDE] * 4]
    assert values_at(cross(), points.places[0]) == [1.0] * 4 + [0.0] * 4


def test_points_are_spread_over_the_arms_and_the_corners() -> None:
    (places,) = points_in_boxes(cross(), WHOLE, torch.tensor([WHOLE]), 4).places
    corners = {(x > 40, y > 30) for x, y in places[4:].tolist()}
    assert len(corners) == 4
    assert torch.pdist(places[:4]).min() > 20


def test_points_stay_in_the_box_and_are_sure_for_what_is_in_it() -> None:
    # A fainter thing at the right: in its own box it is the mask.
    faint = torch.zeros(1, 6, 8)
    faint[:, :, :3], faint[:, 2:4, 6:] = 1, 0.3
    box = (50.0, 10.0, 80.0, 50.0)
    points = points_in_boxes(faint, WHOLE, torch.tensor([box]), 3)
    inside, outside = points.places[0, :3], points.places[0, 3:]
    assert values_at(faint, inside) == pytest.approx([0.3] * 3)
    assert values_at(faint, outside) == [0.0] * 3
    assert all(50 < x < 80 and 10 < y < 50 for x, y in points.places[0].tolist())


def test_the_surest_place_comes_first() -> None:
    peak = torch.full((1, 6, 8), 0.6)
    peak[0, 4, 1] = 1
    (first, *_) = points_in_boxes(peak, WHOLE, torch.tensor([WHOLE]), 2).places[0].tolist()
    assert first == pytest.approx([15, 45], abs=1.5)


@pytest.mark.parametrize(("value", "labels"), [(1.0, [INSIDE] * 2 + [FILLER] * 2), (0.0, [FILLER] * 2 + [OUTSIDE] * 2)])
def test_where_nothing_is_sure_fillers_take_the_places_of_points(value: float, labels: list[int]) -> None:
    even = torch.full((1, 6, 8), value)
    assert points_in_boxes(even, WHOLE, torch.tensor([WHOLE]), 2).labels.tolist() == [labels]


def test_every_mask_has_points_of_its_own() -> None:
    masks = torch.cat([cross(), 1 - cross()])
    points = points_in_boxes(masks, WHOLE, torch.tensor([WHOLE, WHOLE]), 3)
    for mask, places in zip(masks, points.places, strict=True):
        assert values_at(mask[None], places) == [1.0] * 3 + [0.0] * 3


def test_no_masks_have_no_points() -> None:
    points = points_in_boxes(torch.zeros(0, 6, 8), WHOLE, torch.zeros(0, 4), 3)
    assert (points.places.shape, points.labels.shape) == ((0, 6, 2), (0, 6))
