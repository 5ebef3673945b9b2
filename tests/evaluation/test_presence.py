"""AUROC and calibration error against values that are counted by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from vlm_adapters.evaluation.presence import auroc, expected_calibration_error


def test_auroc_counts_the_pairs_in_order_and_half_the_ties() -> None:
    # Pairs of present (0.9, 0.5) and absent (0.5, 0.1): 0.9 > 0.5, 0.9 > 0.1, 0.5 = 0.5, 0.5 > 0.1.
    assert auroc([0.9, 0.5, 0.5, 0.1], [True, True, False, False]) == 3.5 / 4


def test_auroc_equals_the_count_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, present = rng.integers(0, 9, 60) / 8, rng.random(60) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a, b in product(scores[present], scores[~present])]
    assert auroc(scores, present) == pytest.approx(np.mean(pairs))


def test_auroc_needs_both_kinds() -> None:
    assert math.isnan(auroc([0.1, 0.9], [True, True]))


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.2 and 0.4 with one present of two: |0.3 - 0.5|; 0.9 and 0.7 with both present: |0.8 - 1|.
    found = expected_calibration_error([0.2, 0.4, 0.9, 0.7], [False, True, True, True], bins=2)
    assert found == pytest.approx(0.2)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
