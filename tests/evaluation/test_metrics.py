"""Agreement of masks and of their outlines, counted by hand and against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from vlm_adapters.evaluation.metrics import boundary_f_score, box_iou, mask_iou

MASKS = arrays(bool, (5, 7), elements=st.booleans())


def rectangle(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((10, 12), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_two_rectangles_counted_by_hand() -> None:
    # 4 x 6 and 4 x 6 pixels share 2 x 6: 12 of 36.
    assert mask_iou(rectangle(0, 0, 4, 6), rectangle(2, 0, 6, 6)) == pytest.approx(1 / 3)


def test_masks_apart_have_none() -> None:
    assert mask_iou(rectangle(0, 0, 2, 2), rectangle(5, 5, 7, 7)) == 0


def test_two_empty_masks_agree() -> None:
    assert mask_iou(rectangle(0, 0, 0, 0), rectangle(0, 0, 0, 0)) == 1


def test_an_empty_mask_and_a_full_one_have_none() -> None:
    assert mask_iou(rectangle(0, 0, 0, 0), rectangle(0, 0, 10, 12)) == 0


@given(MASKS, MASKS)
def test_it_is_that_of_the_sets_of_pixels(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    first, second = set(np.flatnonzero(a).tolist()), set(np.flatnonzero(b).tolist())
    expected = len(first & second) / len(first | second) if first | second else 1.0
    assert mask_iou(a, b) == mask_iou(b, a) == pytest.approx(expected)


@given(MASKS)
def test_a_mask_is_itself(mask: NDArray[np.bool_]) -> None:
    assert mask_iou(mask, mask.copy()) == 1


def test_an_outline_and_its_neighbour_agree_within_the_tolerance() -> None:
    # Squares of 3 and 5 pixels around the same centre: outlines of 8 and 16 pixels, 1 apart, the corners 1.41.
    small, large = rectangle(4, 4, 7, 7), rectangle(3, 3, 8, 8)
    assert boundary_f_score(small, large) == 1
    assert boundary_f_score(small, large, tolerance=0) == 0
    # Within 1 pixel: all 8 of the small one, and 12 of the large one, which are all but its corners.
    assert boundary_f_score(small, large, tolerance=1) == pytest.approx(2 * 1 * 0.75 / 1.75)


def test_distance_is_not_along_the_axes() -> None:
    # Single pixels 2 right and 1 down of each other are 2.24 apart.
    assert boundary_f_score(rectangle(4, 4, 5, 5), rectangle(5, 6, 6, 7)) == 0
    assert boundary_f_score(rectangle(4, 4, 5, 5), rectangle(4, 6, 5, 7)) == 1


def test_a_wrong_mask_beside_the_right_one_costs_precision() -> None:
    # 4 x 6 pixels have an outline of 16; 2 x 3 more have one of 6.
    truth = rectangle(0, 0, 0, 0)
    truth[1:5, 1:7] = True
    found = truth.copy()
    found[8:10, 9:12] = True
    # At the edge of the image there is no outline: of the 6 pixels, the upper 3 and the lower left one count.
    assert boundary_f_score(found, truth) == pytest.approx(2 * (16 / 20) * 1 / (16 / 20 + 1))


def test_the_edge_of_the_image_is_not_an_outline() -> None:
    # Only the right column of each mask counts: 10 pixels, 1 apart, while upper, left and lower ends agree anyway.
    assert boundary_f_score(rectangle(0, 0, 10, 6), rectangle(0, 0, 10, 7), tolerance=0) == 0
    assert boundary_f_score(rectangle(0, 0, 10, 6), rectangle(0, 0, 10, 7), tolerance=1) == 1


def test_masks_without_an_outline_agree_if_they_are_equal() -> None:
    empty, full = rectangle(0, 0, 0, 0), rectangle(0, 0, 10, 12)
    assert boundary_f_score(empty, empty) == boundary_f_score(full, full) == 1
    assert boundary_f_score(empty, full) == boundary_f_score(full, empty) == 0
    assert boundary_f_score(rectangle(2, 2, 5, 5), empty) == boundary_f_score(empty, rectangle(2, 2, 5, 5)) == 0


def outline_pixels(mask: NDArray[np.bool_]) -> set[tuple[int, int]]:
    inside = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    height, width = mask.shape
    return {
        (y, x)
        for y, x in inside
        if any(
            0 <= v < height and 0 <= u < width and (v, u) not in inside
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        )
    }


@given(MASKS, MASKS, st.integers(0, 3))
def test_it_is_that_of_the_distances_between_outline_pixels(
    a: NDArray[np.bool_], b: NDArray[np.bool_], tolerance: int
) -> None:
    first, second = outline_pixels(a), outline_pixels(b)

    def share(these: set[tuple[int, int]], those: set[tuple[int, int]]) -> float:
        return float(np.mean([any(np.hypot(y - v, x - u) <= tolerance for v, u in those) for y, x in these]))

    expected = float(np.array_equal(a, b))
    if first and second:
        precision, recall = share(first, second), share(second, first)
        expected = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert boundary_f_score(a, b, tolerance=tolerance) == pytest.approx(expected)


def test_boxes_reach_from_the_first_to_the_last_pixel_of_a_mask() -> None:
    # Two corners of a 4 x 6 box; a 4 x 3 box in it shares half.
    corners = rectangle(2, 2, 3, 3) | rectangle(5, 7, 6, 8)
    assert box_iou(corners, rectangle(2, 2, 6, 8)) == 1
    assert box_iou(corners, rectangle(2, 2, 6, 5)) == 0.5
    assert box_iou(rectangle(0, 0, 0, 0), corners) == 0
    assert box_iou(rectangle(0, 0, 0, 0), rectangle(0, 0, 0, 0)) == 1


@given(MASKS, MASKS)
def test_intersections_over_unions_are_those_of_pycocotools(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> None:
    first, second = (coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in (a, b))
    if a.any() or b.any():  # pycocotools gives 0 / 0 as 0
        assert mask_iou(a, b) == pytest.approx(coco.iou([first], [second], [0])[0, 0])
    if a.any() and b.any():
        boxes = [coco.toBbox(mask)[None] for mask in (first, second)]
        assert box_iou(a, b) == pytest.approx(coco.iou(*boxes, [0])[0, 0])
