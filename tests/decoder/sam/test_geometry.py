"""Sizes on the canvas, mask prompts and boxes: by hand, and against the plain resampling of torch."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlm_adapters.decoder.sam.geometry import Frame, boxes_around, coarse_boxes, mask_prompt, peaks
from vlm_adapters.geometry import Box

MASKS = arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), elements=st.booleans())


def whole(frame: Frame) -> Box:
    height, width = frame.size
    return 0, 0, width, height


def corner(size: tuple[int, int], *, bottom: bool, right: bool) -> Tensor:
    """One mask of logit 6 in a corner, a quarter of each side, and -6 elsewhere."""
    h, w = size
    logits = torch.full((1, h, w), -6.0)
    rows = slice(h - h // 4, h) if bottom else slice(0, h // 4)
    logits[:, rows, slice(w - w // 4, w) if right else slice(0, w // 4)] = 6
    return logits


def test_the_long_side_becomes_that_of_the_canvas() -> None:
    cases = [
        ((480, 640), (768, 1024)),
        ((640, 480), (1024, 768)),
        ((375, 500), (768, 1024)),
        ((427, 640), (683, 1024)),  # 683.2
        ((1, 3), (341, 1024)),  # 341.33
        ((3, 2), (1024, 683)),  # 682.67
        ((2000, 3000), (683, 1024)),
    ]
    for size, resized in cases:
        assert Frame(size, 1024).resized == resized, size


def test_points_and_boxes_are_scaled_separately_along_each_axis() -> None:
    frame = Frame((3, 2), 1024)  # 1024 x 683 on the canvas
    assert frame.on_canvas(torch.tensor([[2.0, 3.0]])).tolist() == [[683, 1024]]
    assert frame.box_on_canvas((-1, 0, 2, 1.5)) == pytest.approx((-341.5, 0, 683, 512))


def test_a_mask_prompt_is_resized_padded_and_resized(subtests: pytest.Subtests) -> None:
    for grid, size in product([(24, 24), (48, 64), (7, 5)], [(480, 640), (640, 480), (123, 456), (1500, 900)]):
        with subtests.test(grid=grid, size=size):
            logits = torch.randn(3, *grid, generator=torch.Generator().manual_seed(1)) * 4
            frame = Frame(size, 1024)
            height, width = frame.resized
            steps = functional.interpolate(logits[:, None], (height, width), mode="bilinear", align_corners=False)
            steps = functional.pad(steps, (0, 1024 - width, 0, 1024 - height), value=float(logits.min()))
            expected = functional.interpolate(steps, (256, 256), mode="bilinear", align_corners=False)
            torch.testing.assert_close(mask_prompt(logits, whole(frame), frame, 256), expected, atol=1e-3, rtol=1e-4)


def test_the_padding_is_the_lowest_logit_of_all_masks_and_at_most_minus_one(subtests: pytest.Subtests) -> None:
    for lowest, padding in [(-7.0, -7.0), (-1.0, -1.0), (-0.5, -1.0), (3.0, -1.0)]:
        with subtests.test(lowest=lowest, padding=padding):
            logits = torch.full((2, 4, 4), 5.0)
            logits[1, 2, 2] = lowest
            frame = Frame((50, 100), 64)
            prompt = mask_prompt(logits, whole(frame), frame, 16)
            assert prompt[:, :, 8:].unique().tolist() == [padding]
            assert prompt[:, :, :7].min() >= lowest


def test_what_the_logits_do_not_cover_is_padding() -> None:
    frame = Frame((64, 64), 64)
    prompt = mask_prompt(torch.full((1, 2, 2), 5.0), (16, 0, 48, 64), frame, 16)[0, 0]
    assert prompt[:, 4:12].unique().tolist() == [5]
    assert prompt[:, :4].unique().tolist() == [-1]
    assert prompt[:, 12:].unique().tolist() == [-1]


def test_a_mask_in_a_corner_of_the_image_is_in_that_corner(subtests: pytest.Subtests) -> None:
    for right, bottom, size in product([False, True], [False, True], [(60, 120), (120, 60)]):
        with subtests.test(right=right, bottom=bottom, size=size):
            frame = Frame(size, 1024)
            wanted = corner((16, 16), bottom=bottom, right=right)
            found = mask_prompt(wanted, whole(frame), frame, 256)[0, 0] > 0
            tall, wide = (side // 4 for side in frame.resized)
            rows, columns = np.flatnonzero(found.any(1).numpy()), np.flatnonzero(found.any(0).numpy())
            expected_rows = (tall * 3 // 4, tall - 1) if bottom else (0, tall // 4 - 1)
            expected_columns = (wide * 3 // 4, wide - 1) if right else (0, wide // 4 - 1)
            assert (rows[0], rows[-1]) == expected_rows
            assert (columns[0], columns[-1]) == expected_columns


def test_logits_of_a_padded_square_lose_their_padding() -> None:
    # A square grid around a wide image, as LLaVA's: its upper and lower quarters are padding.
    logits = torch.full((1, 4, 4), -3.0)
    logits[0, 0], logits[0, 1, 3] = 9, 2
    frame = Frame((50, 100), 1024)
    prompt = mask_prompt(logits, (0, -25, 100, 75), frame, 256)[0, 0]
    assert prompt[32, 224] == pytest.approx(2, abs=0.1)  # the cell (1, 3), the uppermost and rightmost of the image
    assert prompt[96, 224] == pytest.approx(-3, abs=0.1)
    assert prompt[128:].unique().tolist() == [-3]


def test_the_gradient_of_a_mask_prompt_is_its_finite_difference() -> None:
    frame = Frame((30, 50), 96)
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 6, generator=generator)
    logits[0, 0, 0] = -9.0  # the lowest stays the lowest
    direction, weights = (torch.randn(shape, generator=generator) for shape in ((2, 5, 6), (2, 1, 24, 24)))
    direction[0, 0, 0] = 0

    def value(step: float) -> Tensor:
        return (mask_prompt(logits + step * direction, (-3, 0, 50, 40), frame, 24).double() * weights).sum()

    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(value(0), logits)
    slope = (value(0.01) - value(-0.01)) / 0.02
    assert float((gradient * direction).sum()) == pytest.approx(slope.item(), rel=1e-3)


@given(MASKS)
@settings(deadline=None)
def test_a_box_ends_where_its_mask_ends(masks: NDArray[np.bool_]) -> None:
    height, width = masks.shape[1:]
    for mask, box in zip(masks, boxes_around(torch.from_numpy(masks)).tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        expected = [0, 0, width, height]
        if len(rows):
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box == expected


def discs(count: int, size: tuple[int, int]) -> Tensor:
    """Logits of discs anywhere, of all sizes, with edges soft and sharp; some lie beyond the grid."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: size[0], : size[1]]
    low, high = (-0.2, -0.2, 0.05, 0.3), (1.2, 1.2, 0.5, 3)
    across, down, radius, steepness = rng.uniform(low, high, (count, 4)).T[:, :, None, None]
    away = np.hypot(x - across * size[1], y - down * size[0])
    return torch.from_numpy(steepness * (radius * min(size) - away)).float()


def test_the_box_of_a_coarse_mask_is_that_of_its_probability_resized_to_the_image() -> None:
    logits = discs(300, (48, 64))
    resized = functional.interpolate(logits.sigmoid()[:, None], (375, 500), mode="bilinear", align_corners=False)
    expected = []
    for mask in (resized[:, 0] > 0.5).numpy():
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 500, 375]
        expected.append(box)
    assert coarse_boxes(logits, (0, 0, 500, 375), (375, 500)).tolist() == expected


def test_the_peak_is_given_as_x_and_y() -> None:
    maps = torch.zeros(2, 3, 5)
    maps[0, 1, 4] = maps[1, 2, 0] = maps[1, 2, 3] = 1
    assert peaks(maps).tolist() == [[4, 1], [0, 2]]
