"""Losses and agreement: values by hand, edges, and gradients."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.decoder.losses import accuracy, dice_loss, mask_loss, mean_iou
from vlm_adapters.errors import DecoderError

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ALL = (mask_loss, dice_loss, accuracy, mean_iou)
LOGIT_75 = math.log(3)  # its probability is 0.75
SURE = 100.0


def tensor(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows)


def test_the_mask_loss_is_the_mean_cross_entropy_of_all_pixels() -> None:
    logits, targets = tensor([[LOGIT_75, LOGIT_75], [0.0, -LOGIT_75]]), tensor([[1, 0], [1, 0]])
    expected = -(math.log(0.75) + math.log(0.25) + math.log(0.5) + math.log(0.75)) / 4
    assert mask_loss(logits, targets).item() == pytest.approx(expected)


def test_the_dice_loss_is_that_of_every_mask_averaged() -> None:
    logits, targets = tensor([[LOGIT_75, -LOGIT_75], [0.0, 0.0]]), tensor([[1, 0], [1, 1]])
    first = 1 - (2 * 0.75 + 1) / (1 + 1 + 1)
    second = 1 - (2 * 1 + 1) / (1 + 2 + 1)
    assert dice_loss(logits, targets).item() == pytest.approx((first + second) / 2)


def test_the_accuracy_is_the_share_of_pixels_on_the_right_side() -> None:
    assert accuracy(tensor([[2, -2, 2, -2], [2, 2, 2, 2]]), tensor([[1, 0, 0, 1], [1, 1, 1, 0]])).item() == 5 / 8


def test_the_mean_iou_weighs_every_mask_alike() -> None:
    logits, targets = tensor([[1, 1, -1, -1], [1, 1, 1, 1]]), tensor([[1, 0, 1, 0], [1, 1, 1, 0]])
    assert mean_iou(logits, targets).item() == pytest.approx((1 / 3 + 3 / 4) / 2)


def test_a_logit_of_zero_and_a_target_of_one_half_are_outside() -> None:
    assert accuracy(tensor([[0.0, 1.0]]), tensor([[0.5, 0.6]])).item() == 1


def test_a_perfect_mask_has_the_best_value() -> None:
    cases: list[tuple[Measure, float]] = [(mask_loss, 0), (dice_loss, 0), (accuracy, 1), (mean_iou, 1)]
    for measure, best in cases:
        targets = tensor([[1, 0, 1, 1], [0, 0, 1, 0]])
        assert measure((2 * targets - 1) * SURE, targets).item() == pytest.approx(best, abs=1e-6), measure


def test_an_inverted_mask_has_the_worst_value() -> None:
    cases: list[tuple[Measure, float]] = [(mask_loss, SURE), (dice_loss, 1 - 1 / 3), (accuracy, 0), (mean_iou, 0)]
    for measure, worst in cases:
        targets = tensor([[1, 0]])
        assert measure((1 - 2 * targets) * SURE, targets).item() == pytest.approx(worst, abs=1e-6), measure


def test_nothing_found_of_nothing_is_right() -> None:
    cases: list[tuple[Measure, float]] = [(mask_loss, 0), (dice_loss, 0), (accuracy, 1), (mean_iou, 1)]
    for measure, best in cases:
        assert measure(torch.full((1, 4), -SURE), torch.zeros(1, 4)).item() == pytest.approx(best, abs=1e-6), measure


def test_extreme_logits_stay_finite() -> None:
    for measure, logit in product(ALL, [-1e4, 1e4]):
        assert torch.isfinite(measure(torch.full((2, 3), logit), torch.eye(2, 3))), (measure, logit)


def test_pixels_may_have_rows_and_columns() -> None:
    for measure in ALL:
        logits, targets = torch.linspace(-3, 3, 24).reshape(2, 3, 4), torch.arange(24).reshape(2, 3, 4) % 3 == 0
        assert measure(logits, targets).item() == measure(logits.reshape(2, 12), targets.reshape(2, 12)).item(), measure


def test_bool_targets_and_half_precision_logits_are_computed_in_float32(subtests: pytest.Subtests) -> None:
    for measure in ALL:
        with subtests.test(measure=measure):
            logits, targets = torch.ones(1, 300, 300, dtype=torch.float16), torch.ones(1, 300, 300, dtype=torch.bool)
            value = measure(logits, targets)
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(measure(logits.float(), targets.float()).item())


@pytest.mark.parametrize("loss", [mask_loss, dice_loss])
def test_a_step_against_the_gradient_lowers_the_loss(loss: Measure) -> None:
    logits, targets = torch.zeros(2, 6, requires_grad=True), torch.eye(2, 6)
    before = loss(logits, targets)
    before.backward()
    assert logits.grad is not None
    assert loss(logits.detach() - 0.1 * logits.grad, targets) < before


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**31))
def test_every_measure_agrees_with_numpy(masks: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, g = rng.normal(0, 3, (masks, pixels)), rng.integers(0, 2, (masks, pixels))
    p = 1 / (1 + np.exp(-x))
    union = ((x > 0) | (g > 0)).sum(1)
    expected = {
        mask_loss: -(g * np.log(p) + (1 - g) * np.log(1 - p)).mean(),
        dice_loss: (1 - (2 * (p * g).sum(1) + 1) / (p.sum(1) + g.sum(1) + 1)).mean(),
        accuracy: ((x > 0) == (g > 0)).mean(),
        mean_iou: np.mean([i / u if u else 1 for i, u in zip(((x > 0) & (g > 0)).sum(1), union, strict=True)]),
    }
    for measure, value in expected.items():
        assert measure(torch.from_numpy(x), torch.from_numpy(g)).item() == pytest.approx(value, abs=1e-5)


def test_different_shapes_are_refused_and_not_broadcast(subtests: pytest.Subtests) -> None:
    for measure in ALL:
        with (
            subtests.test(measure=measure),
            pytest.raises(DecoderError, match=r"logits have shape \(2, 4\) and the targets \(1, 4\). Give one target"),
        ):
            measure(torch.zeros(2, 4), torch.zeros(1, 4))


def test_no_masks_or_pixels_are_refused_and_not_averaged_to_nan(subtests: pytest.Subtests) -> None:
    shapes: list[tuple[int, ...]] = [(0, 4), (2, 0), (3,)]
    for shape, measure in product(shapes, ALL):
        with (
            subtests.test(shape=shape, measure=measure),
            pytest.raises(DecoderError, match=r"Give \(K, H, W\) or \(K, N\) with at least one mask and pixel"),
        ):
            measure(torch.zeros(shape), torch.zeros(shape))
