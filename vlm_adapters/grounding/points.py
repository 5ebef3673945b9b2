"""Masks of what a model's boxes hold, by Segment Anything: the map of the phrase says which part of a box is meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.sam.candidates import POINTS, agreement, sharpness_weight
from vlm_adapters.decoder.sam.geometry import mask_prompt
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.points import points_in_boxes
from vlm_adapters.geometry import Box
from vlm_adapters.heads.extraction import extract_with_neutral, maps_beside_neutral, phrase_heights
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.prompt import Prompt

LEAST_SHARE = 0.6
"""Share of a map that lies in the boxes below which the map is not believed, and the boxes alone decide."""


@dataclass(frozen=True)
class CoarseMask:
    """Where a map says that a phrase is.

    Attributes:
        logits: `(h, w)`; above 0 inside.
        box: Region of the image that they cover, in pixels.
    """

    logits: Tensor = field(repr=False)
    box: Box


def height_logits(heights: Tensor, threshold: float) -> Tensor:
    """Logits of the heights of maps `(..., h, w)` in [0, 1]; 0 at the threshold, which is in (0, 1)."""
    return heights.clamp(1e-4, 1 - 1e-4).logit() - math.log(threshold / (1 - threshold))


def coarse_masks(adapter: BackboneAdapter, prompt: Prompt, profile: HeadProfile) -> list[CoarseMask | None]:
    """Where the maps of a profile's heads say that the phrases of a prompt are; None where no peak stands out.

    Args:
        adapter: The backbone; it reads the prompt and a neutral sentence.
        prompt: The prompt; the maps are those of its first image.
        profile: The heads, and how a mask is made of their maps.
    """
    request = GridRequest.of_heads(profile.indices)
    ((grids, neutral),) = extract_with_neutral(adapter, [prompt], profile.neutral, request)
    relative, box = maps_beside_neutral(grids, neutral, profile.indices)
    heights = phrase_heights(relative, profile)
    logits = height_logits(heights, profile.threshold)
    return [CoarseMask(one, box) if bool(found.any()) else None for one, found in zip(logits, heights, strict=True)]


@torch.no_grad()
def masks_in_boxes(
    sam: SegmentAnything, image: EncodedImage, boxes: Sequence[Box], coarse: CoarseMask | None = None
) -> NDArray[np.float32]:
    """Segment the objects in boxes: of each pixel the largest probability, by a model that was not trained for it.

    With a coarse mask, it is a prompt too, with points inside and outside it. Of the candidates with and without them
    the one is kept that agrees best with the coarse mask in the box and has the sharpest outline. If most of the coarse
    mask lies outside the boxes, they alone decide.

    Args:
        sam: The model.
        image: The image as `sam.encode` returned it.
        boxes: Boxes in pixels of the image, at least one.
        coarse: Where a map says that the phrase is; None for the boxes alone.

    Returns:
        `(H, W)` float32 in [0, 1].
    """
    corners = torch.tensor(boxes)
    decoded = sam.decode(image, boxes=corners)
    chosen = decoded[:, 0] if coarse is None else _chosen_by_map(sam, image, corners, decoded, coarse)
    placed = sam.at_image_size(chosen[:, None], image).sigmoid()
    found: NDArray[np.float32] = placed.amax(dim=(0, 1)).cpu().numpy()
    return found


def _chosen_by_map(
    sam: SegmentAnything, image: EncodedImage, corners: Tensor, alone: Tensor, coarse: CoarseMask
) -> Tensor:
    """For each of B boxes `corners (B, 4)`, with the masks `alone (B, 4, side, side)` of it, the mask that is kept."""
    logits = coarse.logits.float().cpu()
    probability, shares = logits.sigmoid(), _shares_in_boxes(coarse, corners)
    if (probability * shares.amax(dim=0)).sum() < LEAST_SHARE * probability.sum():
        return alone[:, 0]
    within = probability * shares
    points = points_in_boxes(within, coarse.box, corners, POINTS)
    masks = mask_prompt(logits.expand(len(corners), -1, -1), coarse.box, image.frame, sam.mask_side)
    decoded = torch.cat([alone, sam.decode(image, points=points, boxes=corners, masks=masks)], dim=1)
    agreeing = agreement(decoded, within.to(decoded.device), coarse.box, image.frame)
    best = (agreeing * sharpness_weight(decoded)).argmax(dim=1)
    return decoded[torch.arange(len(best), device=best.device), best]


def _shares_in_boxes(coarse: CoarseMask, corners: Tensor) -> Tensor:
    """Share of every cell of a coarse mask that lies in each of B boxes `(B, 4)`, in [0, 1]: `(B, h, w)`."""
    h, w = coarse.logits.shape
    left, top, right, bottom = coarse.box

    def along(start: float, end: float, cells: int, low: Tensor, high: Tensor) -> Tensor:
        edges = torch.linspace(start, end, cells + 1)
        covered = torch.minimum(edges[1:], high[:, None]) - torch.maximum(edges[:-1], low[:, None])
        return (covered / ((end - start) / cells)).clamp(0, 1)

    across = along(left, right, w, corners[:, 0], corners[:, 2])
    return along(top, bottom, h, corners[:, 1], corners[:, 3])[:, :, None] * across[:, None]
