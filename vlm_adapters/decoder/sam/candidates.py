"""Masks that Segment Anything offers for several prompts of a coarse mask, and the choice among them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.decoder.sam.geometry import Frame, boxes_around, peaks
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.points import PointPrompts, points_in_boxes
from vlm_adapters.geometry import Box, Size, place_map

POINTS = 5
"""Points inside a mask, and points beside it."""

_SAMPLES = 8
"""Samples of a candidate along each side of a coarse cell."""

_TIGHT, _WIDE = 1 / 2, 1 / 8
"""Shares of a coarse mask's peak above which a place is in the box around its core, or around all of it."""

_LEAST_WIDE = 0.03
"""Probability below which a place is not in the wide box, however low the peak is."""

_MARGIN = 0.1
"""Share of the wide box's sides beyond it within which points are chosen: some lie just outside the mask."""

_SHARP = 0.98
"""Stability from which a mask has a sharp outline."""

_HALF_WIDTH = 2.0
"""Cells over which the outline of a mask is undecided that halve what its agreement counts."""


class Candidates(NamedTuple):
    """The chosen masks of P phrases.

    Attributes:
        decoded: `(P, side, side)` logits over the canvas.
        is_sharp: `(P,)` bool: whether the model is sure where the outline is.
    """

    decoded: Tensor
    is_sharp: Tensor


def best_candidates(sam: SegmentAnything, image: EncodedImage, logits: Tensor, box: Box, masks: Tensor) -> Candidates:
    """For each coarse mask the candidate that agrees most with it and has the sharpest outline.

    Prompts are the coarse mask with its peak, with and without a box around its core, and with points inside and
    outside it in a box around all of it. Each gives four candidates.

    Args:
        sam: The model.
        image: Image, as `sam.encode` gives it.
        logits: `(P, h, w)` coarse mask logits, P at least 1.
        box: Region of the image that they cover.
        masks: `(P, 1, side, side)`, the same as `mask_prompt` gives them.
    """
    coarse = logits.float().sigmoid()
    highest, tight, wide = [], [], []
    for one in coarse.split(1):  # at the image's size those of all would take gigabytes
        probability = place_map(one, box, image.frame.size)
        top = probability.amax(dim=(1, 2), keepdim=True)
        highest.append(peaks(probability))
        tight.append(boxes_around(probability > _TIGHT * top))
        wide.append(boxes_around(probability > (_WIDE * top).clamp(min=_LEAST_WIDE)))
    peak, around = PointPrompts.one_inside(torch.cat(highest)), torch.cat(wide)
    points = points_in_boxes(coarse, box, _grown(around, image.frame.size), POINTS)
    decoded = torch.cat(
        [
            sam.decode(image, points=peak, boxes=torch.cat(tight), masks=masks),
            sam.decode(image, points=peak, masks=masks),
            sam.decode(image, points=points, boxes=around, masks=masks),
        ],
        dim=1,
    )
    agreeing = agreement(decoded, coarse.to(decoded.device), box, image.frame)
    best = (agreeing * sharpness_weight(decoded)).argmax(dim=1)
    chosen = decoded[torch.arange(len(best), device=best.device), best]
    return Candidates(chosen, stability(chosen) > _SHARP)


def _grown(boxes: Tensor, size: Size) -> Tensor:
    """Boxes `(P, 4)` with `_MARGIN` around them, within an image `(H, W)`."""
    margins = _MARGIN * (boxes[:, 2:] - boxes[:, :2])
    low, high = (boxes[:, :2] - margins).clamp(min=0), boxes[:, 2:] + margins
    return torch.cat([low, torch.minimum(high, high.new_tensor([size[1], size[0]]))], dim=1)


def stability(decoded: Tensor) -> Tensor:
    """The share of masks `(..., side, side)` that is left as the cut rises from logit -1 to 1, in [0, 1]: `(...)`."""
    return (decoded > 1).sum(dim=(-2, -1)) / (decoded > -1).sum(dim=(-2, -1)).clamp(min=1)


def outline_width(decoded: Tensor) -> Tensor:
    """Over how many cells the outline of masks `(..., side, side)` is undecided, between logit -1 and 1: `(...)`."""
    inside = decoded > 0
    length = (inside[..., 1:, :] ^ inside[..., :-1, :]).sum(dim=(-2, -1))
    length = length + (inside[..., 1:] ^ inside[..., :-1]).sum(dim=(-2, -1))
    return (decoded.abs() < 1).sum(dim=(-2, -1)) / length.clamp(min=1)


def sharpness_weight(decoded: Tensor) -> Tensor:
    """What the agreement of masks `(..., side, side)` counts: 1 for a sharp outline, half at `_HALF_WIDTH`."""
    return 1 / (1 + outline_width(decoded) / _HALF_WIDTH)


def agreement(decoded: Tensor, coarse: Tensor, box: Box, frame: Frame) -> Tensor:
    """Intersection over union of candidates and coarse masks, as shares of the coarse cells.

    Args:
        decoded: `(P, n, side, side)` logits over the canvas.
        coarse: `(P, h, w)` probabilities.
        box: Region of the image that `coarse` covers.
        frame: The image on the canvas.

    Returns:
        `(P, n)` in [0, 1].
    """
    h, w = coarse.shape[1:]
    size = h * _SAMPLES, w * _SAMPLES
    left, top, right, bottom = box
    across, down = size[1] / (right - left), size[0] / (bottom - top)

    def shares(maps: Tensor, end: tuple[float, float]) -> Tensor:
        """Share `(..., h, w)` of each cell that is above 0 in a map over the image's pixels up to `end` (x, y)."""
        region = -left * across, -top * down, (end[0] - left) * across, (end[1] - top) * down
        return functional.avg_pool2d((place_map(maps, region, size, outside=-1.0) > 0).float(), _SAMPLES)

    (height, width), (tall, wide) = frame.size, frame.resized
    found = shares(decoded, (frame.side * width / wide, frame.side * height / tall))
    # Beyond the image neither map means anything.
    inside = shares(torch.ones(1, 1, 1, 1, device=coarse.device), (width, height))
    wanted = coarse[:, None]
    common = (inside * torch.minimum(found, wanted)).sum(dim=(2, 3))
    return common / (inside * torch.maximum(found, wanted)).sum(dim=(2, 3)).clamp(min=1e-12)
