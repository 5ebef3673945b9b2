"""How well a presence tells phrases that are in the image from those that are not, and whether it is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[np.floating]
Truth = Sequence[bool] | NDArray[np.bool_]

BINS = 15
"""Number of equal bins of the calibration error."""


def auroc(scores: Numbers, present: Truth) -> float:
    """Chance that a present phrase scores higher than an absent one, a tie counting half; nan without one of each.

    Args:
        scores: `(N,)` of any real numbers.
        present: `(N,)`.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(present, np.bool_)
    absent = np.sort(values[~truth])
    if not len(absent) or not truth.any():
        return float("nan")
    below, up_to = (np.searchsorted(absent, values[truth], side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(absent)))


def expected_calibration_error(probabilities: Numbers, present: Truth, bins: int = BINS) -> float:
    """Mean distance between how probable phrases were said to be and how many were there, over equal bins; in [0, 1].

    Args:
        probabilities: `(N,)` in [0, 1], at least one.
        present: `(N,)`.
        bins: Number of bins, each weighted by its share of the phrases.
    """
    values, truth = np.asarray(probabilities, np.float64), np.asarray(present, np.float64)
    index = np.minimum((values * bins).astype(int), bins - 1)
    said, found = (np.bincount(index, weights, bins) for weights in (values, truth))
    return float(np.abs(said - found).sum() / len(values))
