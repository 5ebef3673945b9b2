"""Probabilities from logits, against hand-computed values, and a threshold that loses few present phrases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vlm_adapters.decoder.calibration import LOST, Calibration
from vlm_adapters.errors import DecoderError


def drawn(count: int, scale: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and truths that are as likely as `sigmoid(scale * logit + offset)` says."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, count)
    return logits, rng.random(count) < 1 / (1 + np.exp(-(scale * logits + offset)))


def test_probabilities_are_the_sigmoid_of_scaled_and_shifted_logits() -> None:
    found = Calibration(scale=2.0, offset=-1.0).probabilities(torch.tensor([0.5, 1.0, -1.0]))
    assert found.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(3))])


def test_scale_and_offset_that_the_truths_were_drawn_with_are_found() -> None:
    fitted = Calibration.of(*drawn(40_000, scale=0.5, offset=-0.8))
    assert (fitted.scale, fitted.offset) == (pytest.approx(0.5, abs=0.02), pytest.approx(-0.8, abs=0.05))


def test_the_threshold_loses_no_more_present_phrases_than_allowed() -> None:
    logits, present = drawn(5_000, scale=0.5, offset=0.0)
    fitted = Calibration.of(logits, present)
    lost = fitted.absent(torch.from_numpy(logits[present])).float().mean()
    assert 0.8 * LOST < lost <= LOST


def test_the_threshold_is_never_above_one_half() -> None:
    assert Calibration.of([-9.0, -8.0, 8.0, 9.0], [False, False, True, True]).threshold == 0.5


def test_the_order_of_the_samples_does_not_matter() -> None:
    logits, present = drawn(300, scale=1.0, offset=0.3)
    order = np.random.default_rng(1).permutation(300)
    assert Calibration.of(logits, present) == Calibration.of(logits[order], present[order])


def test_perfect_separation_stays_finite() -> None:
    fitted = Calibration.of([-1.0, 1.0] * 50, [False, True] * 50)
    assert math.isfinite(fitted.scale)
    found = fitted.probabilities(torch.tensor([-1.0, 1.0])).tolist()
    assert found == pytest.approx([1 / 52, 51 / 52], abs=1e-3)


def test_logits_that_say_the_opposite_lose_nothing() -> None:
    fitted = Calibration.of([3.0, 2.0, -2.0, -3.0], [False, False, True, True])
    assert fitted.probabilities(torch.tensor([-3.0, 3.0])).tolist() == [0.5, 0.5]
    assert not fitted.absent(torch.tensor([-3.0, 3.0])).any()


def test_one_kind_of_phrases_cannot_calibrate() -> None:
    with pytest.raises(
        DecoderError, match=r"3 phrases of which 3 are in the image\. Give samples with present and abs"
    ):
        Calibration.of([0.1, 0.2, 0.3], [True] * 3)
