"""Where things stand for Segment Anything: images on its square canvas, and prompts made of coarse mask logits.

Sizes and the mask prompt are those of F-LMM (arXiv 2406.05821); `segment_anything` says how an image is resized.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional

from vlm_adapters.geometry import Box, place_map, region_of

PHRASES_AT_ONCE = 16
"""Number of phrases that are brought to the canvas, and decoded, at once: each takes tens of megabytes."""

_HALF = 0.4999
"""Cells up to this, placed, stay below one half however they are rounded."""

_HIGHEST_PADDING = -1.0
"""Logit of the canvas beyond the image, unless a mask has a lower one."""


@dataclass(frozen=True)
class Frame:
    """How an image lies on a square canvas: its long side resized to the canvas's, at the top left.

    Attributes:
        size: `(H, W)` of the upright image, in pixels.
        side: Side of the canvas, in pixels; 1024 for all published models.
    """

    size: tuple[int, int]
    side: int

    @property
    def resized(self) -> tuple[int, int]:
        """`(height, width)` of the image on the canvas, in pixels."""
        height, width = ResizeLongestSide.get_preprocess_shape(*self.size, self.side)
        return int(height), int(width)

    def on_canvas(self, points: Tensor) -> Tensor:
        """Points `(..., 2)` as x, y in pixels of the image, to pixels of the canvas."""
        (height, width), (tall, wide) = self.size, self.resized
        return points * points.new_tensor([wide / width, tall / height])

    def to_image(self, decoded: Tensor) -> Tensor:
        """Bring decoded masks `(P, n, side, side)` to the image, bilinearly, without the padding: `(P, n, H, W)`.

        The same as `segment_anything` does it: to the canvas first.
        """
        canvas = functional.interpolate(decoded, (self.side, self.side), mode="bilinear", align_corners=False)
        height, width = self.resized
        return functional.interpolate(canvas[..., :height, :width], self.size, mode="bilinear", align_corners=False)

    def box_on_canvas(self, box: Box) -> Box:
        """A box in pixels of the image, in pixels of the canvas."""
        left, top, right, bottom = self.on_canvas(torch.tensor(box, dtype=torch.float64).view(2, 2)).flatten().tolist()
        return left, top, right, bottom


def mask_prompt(logits: Tensor, box: Box, frame: Frame, side: int) -> Tensor:
    """Turn coarse masks into what Segment Anything takes as masks; gradient flows through.

    Bilinear to the resized image, padded to the canvas, bilinear to `side`. The padding, and the part of the image
    that the logits do not cover, is the lowest logit of all the masks, but at most -1.

    Args:
        logits: `(P, h, w)`, P at least 1.
        box: Region of the image that they cover.
        frame: The image on the canvas.
        side: Side of the result, in cells; 256 for all published models.

    Returns:
        `(P, 1, side, side)` float32 logits over the whole canvas.
    """
    lowest = min(_HIGHEST_PADDING, float(logits.detach().min()))
    height, width = frame.resized

    def prompt(some: Tensor) -> Tensor:
        placed = place_map(some, frame.box_on_canvas(box), (height, width), outside=lowest)
        canvas = functional.pad(placed, (0, frame.side - width, 0, frame.side - height), value=lowest)
        return functional.interpolate(canvas[:, None], (side, side), mode="bilinear", align_corners=False)

    return torch.cat([prompt(some) for some in logits.split(PHRASES_AT_ONCE)])


def coarse_boxes(logits: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Boxes around coarse masks: where the probability, resized to the image, is above one half.

    The probability is resized, as in F-LMM; logits resized and cut at 0 would move an edge by up to two pixels.

    Args:
        logits: `(P, h, w)`.
        box: Region of the image that they cover.
        size: `(H, W)` of the image.

    Returns:
        `(P, 4)` float32, as `boxes_around` gives them.
    """
    boxes = []
    for one in logits.float().sigmoid().split(1):  # at the image's size those of all would take gigabytes
        region = region_of(one[0] > _HALF, box, size) or (0, 0, size[1], size[0])
        mask = place_map(one, box, size, region=region) > 0.5
        corner = torch.tensor(region[:2] * 2, dtype=torch.float32, device=mask.device)
        whole = torch.tensor([[0.0, 0.0, size[1], size[0]]], device=mask.device)
        boxes.append(torch.where(mask.any(), boxes_around(mask) + corner, whole))
    return torch.cat(boxes)


def boxes_around(masks: Tensor) -> Tensor:
    """Boxes around masks `(P, H, W)` bool; the whole image where a mask is empty.

    Returns:
        `(P, 4)` float32: left, top, right, bottom in pixels, right and bottom excluded.
    """
    # argmax is the first of equals: 0 where nothing is taken, which makes the box of an empty mask the whole
    (left, right), (top, bottom) = (
        (taken.argmax(dim=1), taken.shape[1] - taken.flip(1).argmax(dim=1))
        for taken in (masks.any(dim=1).int(), masks.any(dim=2).int())
    )
    return torch.stack([left, top, right, bottom], dim=1).float()


def peaks(maps: Tensor) -> Tensor:
    """The highest pixel of every map `(P, H, W)`; the uppermost, then leftmost, of equals.

    Returns:
        `(P, 2)` float32: x, y in pixels.
    """
    highest = maps.flatten(1).argmax(dim=1)
    return torch.stack([highest % maps.shape[2], highest // maps.shape[2]], dim=1).float()
