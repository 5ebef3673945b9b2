"""Metrics of masks, on numpy arrays at the picture's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks `(H, W)` bool, in [0, 1]; two empty masks agree: 1."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0
