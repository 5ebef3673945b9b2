"""Intersection over union, counted by hand and against sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vlm_adapters.evaluation.metrics import mask_iou

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
