"""Metrics of masks, on numpy arrays at the image's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks `(H, W)` bool, in [0, 1]; 1 if both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def box_iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of the boxes around two masks `(H, W)` bool, in [0, 1]; 1 if both are empty.

    A box extends from the first to the last row and column in which the mask has a pixel, both included.
    """
    return mask_iou(_filled_box(found), _filled_box(truth))


def boundary_f_score(found: NDArray[np.bool_], truth: NDArray[np.bool_], *, tolerance: int = 2) -> float:
    """Measure how well the outlines of two masks agree: harmonic mean of precision and recall of their pixels.

    The outline of a mask is those of its pixels that have one of their four neighbours outside it; the edge of the
    image does not count. A pixel agrees if a pixel of the other outline is at most `tolerance` away. This is the
    boundary F-score of Perazzi et al., the DAVIS benchmark (CVPR 2016), with the tolerance in pixels.

    Args:
        found: `(H, W)` bool.
        truth: `(H, W)` bool.
        tolerance: Largest distance between pixels that agree, in pixels.

    Returns:
        The score in [0, 1]. If a mask has no outline: 1 if the masks are equal, otherwise 0.
    """
    outline, true_outline = _outline(found), _outline(truth)
    if not (outline.any() and true_outline.any()):
        return float(np.array_equal(found, truth))
    precision = float(_near(true_outline, tolerance)[outline].mean())
    recall = float(_near(outline, tolerance)[true_outline].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _filled_box(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    box = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size:
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = mask & ~inner
    return outline


def _near(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels at most `distance` away from a mask, measured between their centres."""
    height, width = mask.shape
    padded = np.pad(mask, distance)
    near = np.zeros_like(mask)
    for down in range(-distance, distance + 1):
        for across in range(-distance, distance + 1):
            if down**2 + across**2 <= distance**2:
                top, left = distance + down, distance + across
                near |= padded[top : top + height, left : left + width]
    return near
