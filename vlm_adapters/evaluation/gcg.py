"""Metrics of captions with grounded phrases, as the evaluation of GLaMM computes them (arXiv 2311.03356).

Its metrics of the words alone, METEOR and CIDEr, are not here. How alike two phrases are is asked of a function that
the caller passes: GLaMM takes the cosine of mean embeddings of BERT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.data.rle import decode_rle
from vlm_adapters.errors import DataError
from vlm_adapters.evaluation.metrics import mask_iou

Similarity = Callable[[str, str], float]
"""How alike a true phrase, the first, and a found one are; GLaMM's lies in [-1, 1]."""

MOST_FOUND = 100
"""Most masks of an image that count for the average precision, as in COCO."""

_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class GroundedCaption:
    """The phrases of a caption and their masks.

    Attributes:
        phrases: The words of every phrase.
        masks: `(P, H, W)` bool, at the image's size.
    """

    phrases: Sequence[str]
    masks: NDArray[np.bool_] = field(repr=False)

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or len(self.masks) != len(self.phrases):
            raise DataError(
                f"{len(self.phrases)} phrases need as many masks, an array (P, H, W), got the shape {self.masks.shape}."
            )

    @classmethod
    def of_run_lengths(cls, phrases: Sequence[str], masks: Sequence[dict[str, object]]) -> Self:
        """Decode masks that are COCO's compressed run lengths, at least one, such as `pred_masks` of a `GCGResult`.

        Raises:
            DataError: There is none, they differ in size, or one is malformed.
        """
        decoded = [decode_rle(mask) for mask in masks]
        if len({mask.shape for mask in decoded}) != 1:
            raise DataError(f"The masks of an image need one size, and {len(decoded)} masks have several or none.")
        return cls(phrases, np.stack(decoded))


@dataclass(frozen=True)
class GCGScores:
    """Scores of captions with grounded phrases.

    Attributes:
        ap50: Average precision of the masks at an IoU of 0.5, all of the same score; nan without true masks.
        miou: Mean over images of the mean IoU of masks that are paired; an image without a pair counts 0.
        recall: Share of true phrases that are paired with a found one that is alike in place and in words.
        images: Number of images.
    """

    ap50: float
    miou: float
    recall: float
    images: int


def gcg_scores(
    pairs: Iterable[tuple[GroundedCaption, GroundedCaption]],
    similarity: Similarity,
    *,
    iou: float = 0.5,
    least_similarity: float = 0.5,
) -> GCGScores:
    """Score captions with grounded phrases against true ones.

    All masks have the same score, so the average precision depends on the order of images; COCO's is that of their ids.

    Args:
        pairs: For every image what was found, and the truth; one after the other, so that all need not fit in memory.
        similarity: How alike two phrases are.
        iou: Least IoU of masks that are alike.
        least_similarity: Least similarity of phrases that are alike.

    Raises:
        DataError: The masks of an image differ in size.
    """
    hits: list[bool] = []
    means: list[float] = []
    recalled = true = 0
    for found, truth in pairs:
        ious = _ious(found.masks, truth.masks)
        hits += _hits(ious[:MOST_FOUND], iou)
        means.append(_mean_of_pairs(ious))
        recalled += len(_alike(ious, found.phrases, truth.phrases, similarity, (iou, least_similarity)))
        true += len(truth.phrases)
    return GCGScores(
        ap50=_average_precision(hits, true),
        miou=float(np.mean(means)) if means else 0.0,
        recall=recalled / true if true else 0.0,
        images=len(means),
    )


def _ious(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of every found mask with every true one, `(P, T)`; that of two empty masks is 0."""
    if len(found) and len(truth) and found.shape[1:] != truth.shape[1:]:
        raise DataError(
            f"Masks of {found.shape[1:]} (H, W) were found, and the true ones are {truth.shape[1:]}. Give masks at the "
            "image's size."
        )
    values = [[mask_iou(one, other) if one.any() else 0.0 for other in truth] for one in found]
    return np.array(values, np.float64).reshape(len(found), len(truth))


def _hits(ious: NDArray[np.float64], least: float) -> list[bool]:
    """Whether each found mask, in order, takes a true one that none before it took; of equal ones the last."""
    free = np.ones(ious.shape[1], np.bool_)
    hits = []
    for of_found in ious:
        candidates = np.where(free & (of_found >= least), of_found, -1.0)
        hit = bool(candidates.size) and bool(candidates.max() >= 0)
        if hit:
            free[len(candidates) - 1 - int(np.argmax(candidates[::-1]))] = False
        hits.append(hit)
    return hits


def _average_precision(hits: Sequence[bool], true: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    if not true:
        return float("nan")
    right = np.cumsum(np.array(hits, np.float64))
    recall = right / true
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(best, 0.0)[np.minimum(places, len(hits))].mean())


def _mean_of_pairs(ious: NDArray[np.float64]) -> float:
    """Mean IoU of pairs: the two masks that overlap best, then the best two of the others, while any overlap."""
    left, paired = ious.copy(), []
    while left.size and left.max() > 0:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        paired.append(float(left[row, column]))
        left[row], left[:, column] = 0, 0
    return float(np.mean(paired)) if paired else 0.0


def _alike(
    ious: NDArray[np.float64],
    found: Sequence[str],
    truth: Sequence[str],
    similarity: Similarity,
    least: tuple[float, float],
) -> list[tuple[int, int]]:
    """Pairs of a true and a found phrase that are alike, best overlap first.

    As GLaMM does, it ends at the first pair that is not alike, even where one behind it would be.
    """
    left, pairs = ious.T.copy(), list[tuple[int, int]]()
    while left.size:
        row, column = map(int, np.unravel_index(int(left.argmax()), left.shape))
        if left[row, column] < least[0] or similarity(truth[row], found[column]) < least[1]:
            break
        pairs.append((row, column))
        left[row], left[:, column] = -1, -1
    return pairs
