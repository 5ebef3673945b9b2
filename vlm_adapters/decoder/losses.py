"""Losses, and measures of agreement, of mask logits with masks.

Every loss takes logits of `K` masks, `(K, H, W)` or `(K, N)`, any real numbers, and targets of the same shape, bool
or in [0, 1] (soft edges). It computes in float32, gives a scalar tensor, and raises `DecoderError` where the shapes
differ or nothing is there. Source: F-LMM (arXiv 2406.05821).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlm_adapters.decoder.logits import MaskLogits
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import Box


def cover_cells(masks: NDArray[np.bool_], box: Box, size: tuple[int, int]) -> Tensor:
    """How much of every cell of a grid the masks cover: targets of the size of coarse logits.

    Args:
        masks: `(P, H, W)`.
        box: `(left, top, right, bottom)` that the grid covers, in pixels of the image; rounded to whole pixels.
        size: Rows and columns of the grid.

    Returns:
        `(P, *size)` float32 in [0, 1]; 0 where the grid reaches beyond the image.
    """
    (height, width), (left, top, right, bottom) = masks.shape[1:], (round(side) for side in box)
    framed = functional.pad(torch.from_numpy(masks).float(), (-left, right - width, -top, bottom - height))
    return functional.adaptive_avg_pool2d(framed, size)


def decoder_loss(found: Sequence[MaskLogits], masks: Sequence[NDArray[np.bool_]]) -> Tensor:
    """The loss of every image times its number of phrases, summed: divide by the number of all phrases.

    Of an image: binary cross entropy and Dice loss of the coarse logits against the share of every cell that is
    covered, and of the refined ones against the masks at the image's size, each with weight 1 (F-LMM, arXiv
    2406.05821).

    Of a decoder with a presence head: these for the phrases that have a mask, and the binary cross entropy of presence
    for all. So a phrase that is not in the image, whose mask is empty, teaches the masks nothing.

    Args:
        found: Logits of every image, at least one, as a `MaskDecoder` gives them.
        masks: `(P, H, W)` of every image: the truth.
    """
    total = found[0].coarse.new_zeros((), dtype=torch.float32)
    for logits, truth in zip(found, masks, strict=True):
        coarse, learned = logits.coarse, np.ones(len(truth), np.bool_)
        if logits.presence is not None:
            learned &= truth.any(axis=(1, 2))
            total = total + presence_loss(logits.presence, torch.from_numpy(learned)) * len(truth)
        if not learned.any():
            continue
        chosen = torch.from_numpy(np.flatnonzero(learned)).to(coarse.device)
        cover = cover_cells(truth[learned], logits.box, (coarse.shape[1], coarse.shape[2])).to(coarse.device)
        loss = mask_loss(coarse[chosen], cover) + dice_loss(coarse[chosen], cover)
        if (refined := logits.refined) is not None:
            fine = torch.from_numpy(truth[learned]).to(refined.device)
            loss = loss + mask_loss(refined[chosen], fine) + dice_loss(refined[chosen], fine)
        total = total + loss * int(learned.sum())
    return total


def presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Binary cross entropy of presence, the mean over `K` phrases; in nats, at least 0.

    Args:
        logits: `(K,)`, before calibration.
        present: `(K,)` bool.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), present.to(logits.device).float())


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy, the mean over all pixels of all masks; in nats, at least 0."""
    logits, targets = _flat(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss, the mean over the masks; in [0, 1].

    Of one mask with probabilities p and target g: `1 - (2 * sum(p * g) + 1) / (sum(p) + sum(g) + 1)`. The ones keep an
    empty mask finite.
    """
    logits, targets = _flat(logits, targets)
    p = logits.sigmoid()
    overlap = 2 * (p * targets).sum(dim=1) + 1
    return (1 - overlap / (p.sum(dim=1) + targets.sum(dim=1) + 1)).mean()


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Share of pixels on the right side, both cut at 0.5; in [0, 1]."""
    found, truth = _cut(logits, targets)
    return (found == truth).float().mean()


def mean_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Intersection over union, both cut at 0.5, the mean over the masks; in [0, 1]. Both empty counts as 1."""
    found, truth = _cut(logits, targets)
    intersection = (found & truth).sum(dim=1).float()
    union = (found | truth).sum(dim=1).float()
    return intersection.div(union).where(union > 0, 1.0).mean()


def _cut(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as bool (K, N): a logit above 0 is a probability above 0.5."""
    logits, targets = _flat(logits, targets)
    return logits > 0, targets > 0.5


def _flat(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 (K, N)."""
    if logits.shape != targets.shape:
        raise DecoderError(
            f"The logits have shape {tuple(logits.shape)} and the targets {tuple(targets.shape)}. Give one target "
            "of the same size per mask."
        )
    if logits.ndim < 2 or not logits.numel():
        raise DecoderError(
            f"The logits have shape {tuple(logits.shape)}. Give (K, H, W) or (K, N) with at least one mask and pixel."
        )
    return logits.flatten(1).float(), targets.flatten(1).float()
