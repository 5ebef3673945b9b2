"""Calibration: choosing the heads of a profile that follow phrases, by their maps alone or by known masks.

Without masks, heads are ranked by how well they follow phrases when the images are turned upside down (see `ranking`).
With masks, every head is tried alone, and then the best one, two, three, ... together. In both cases, a peak must stand
out more than peaks do in evenly grey images. If no head follows phrases, or the masks of the best are hardly better
than by chance, the profile says that there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder.checkpoint import BackboneReference
from vlm_adapters.decoder.losses import cover_cells
from vlm_adapters.embedded.unlike_scenes import images_of_our_own
from vlm_adapters.errors import DataError
from vlm_adapters.geometry import Box
from vlm_adapters.heads.extraction import (
    NEUTRAL_TEXT,
    extract_with_neutral,
    maps_beside_neutral,
    turned_prompt,
    with_images,
)
from vlm_adapters.heads.maps import combine, head_maps, heights, prominence, relative_maps, smooth, turn_back
from vlm_adapters.heads.profile import Criterion, HeadProfile, ProfileHead
from vlm_adapters.heads.ranking import (
    SMOOTHING,
    agreement,
    best_first,
    contrast,
    difference,
    following,
    following_weights,
)
from vlm_adapters.prompt import Prompt

CALIBRATION_SEED = 5
"""Seed of the scenes that heads are chosen on; no embedded checkpoint was trained or is measured on them."""

LABEL_FREE_HEIGHT = 0.4
"""Threshold of masks where no masks are known to choose it by, between a map's median and its peak."""

HEIGHT_THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Thresholds that known masks choose from."""

LEAST_FOLLOWING = 0.4
"""If no head follows phrases at least this well, a profile made without masks has none."""

MIN_RATIO_TO_BEST = 0.5
"""Without masks, heads are chosen that follow phrases at least this well, compared with the best head."""

LEAST_GAIN = 2.5
"""If the best head's masks do not fit what is asked this many times better than another thing, a profile has none."""

MAX_HEADS = 8
"""Largest number of heads that make the masks of a profile."""

MAX_PROFILE_HEADS = 128
"""Largest number of heads in a profile, those that make no masks included."""

MAX_FOUND_IN_GREY = 0.05
"""Share of the maps of grey images in which something may be found."""

MAX_LOST = 0.05
"""Share of the maps of the images themselves in which nothing may be found for the sake of the grey ones."""

GREY = (128, 128, 128)
"""Colour of the images in which nothing should be found."""


@dataclass(frozen=True)
class CalibrationSet:
    """The images and sentences that heads are chosen on.

    Attributes:
        prompts: Images with sentences and phrases.
        masks: `(P, H, W)` bool per prompt; None where they are not known.
        source: Where the images come from, for the profile.
        seed: Seed of the scenes, for the profile.
    """

    prompts: Sequence[Prompt]
    masks: Sequence[NDArray[np.bool_]] | None
    source: str
    seed: int | None = None

    def __post_init__(self) -> None:
        if not any(prompt.phrases for prompt in self.prompts):
            raise DataError(f"{self.source} has no phrase to choose heads by. Give images with sentences.")

    @classmethod
    def of_scenes(cls, scenes: Iterable[Sample], seed: int, *, labelled: bool) -> CalibrationSet:
        """Make a set of synthetic scenes, with their masks or without."""
        samples = list(scenes)
        masks = [sample.masks for sample in samples] if labelled else None
        return cls([sample.prompt for sample in samples], masks, "scenes", seed)


def calibrate(
    adapter: BackboneAdapter,
    data: CalibrationSet,
    *,
    criterion: Literal["iou", "pointing"] = "iou",
    neutral: str = NEUTRAL_TEXT,
    most: int = MAX_HEADS,
) -> HeadProfile:
    """Choose the heads of a checkpoint that show where phrases are.

    Args:
        adapter: The backbone.
        data: Images and sentences; if their masks are known, heads are chosen by them, otherwise label-free.
        criterion: With masks, what to maximise: the IoU of the masks, or the share of maps that peak on the object.
        neutral: A sentence that says nothing about the image.
        most: Largest number of heads that make masks.
    """
    if data.masks is None:
        ranked = _rank_by_following(adapter, data.prompts, neutral)
    else:
        ranked = _rank_by_masks(adapter, data, criterion, neutral)
    maps = [_chosen_maps(adapter, prompt, ranked[:most], neutral) for prompt in data.prompts]
    if data.masks is None:
        count, threshold = _count_followers(ranked[:most]), LABEL_FREE_HEIGHT
    else:
        count, threshold = _best_combination(maps, data.masks, ranked[:most], criterion)
        count = count if _follows(maps, data.masks, ranked) else 0
    chosen = ranked[:count]
    with images_of_our_own():
        grey = [_chosen_maps(adapter, _greyed(prompt), chosen, neutral) for prompt in data.prompts] if chosen else []
    return HeadProfile(
        backbone=BackboneReference.of(adapter.info),
        criterion="following" if data.masks is None else criterion,
        source=data.source,
        samples=len(data.prompts),
        seed=data.seed,
        neutral=neutral,
        heads=chosen,
        others=ranked[len(chosen) : MAX_PROFILE_HEADS],
        smoothing=SMOOTHING,
        threshold=threshold,
        least_prominence=_least_prominence(maps, grey, chosen) if chosen else 0.0,
    )


@dataclass(frozen=True)
class _Maps:
    """Relative maps `(P, C, h, w)` of the phrases of an image, and the box that they cover."""

    relative: Tensor
    box: Box

    def combined(self, heads: Sequence[ProfileHead]) -> Tensor:
        """`(P, h, w)`: the maps of the first heads, combined."""
        return combine(self.relative[:, : len(heads)], [head.weight for head in heads], SMOOTHING)

    def pooled(self, masks: NDArray[np.bool_]) -> Tensor:
        """`(P, h, w)`: the cells that show the true masks."""
        return pool_masks(masks, self.box, (self.relative.shape[2], self.relative.shape[3]))


def _rank_by_following(adapter: BackboneAdapter, prompts: Sequence[Prompt], neutral: str) -> list[ProfileHead]:
    found = []
    for prompt in prompts:
        asked = [prompt, turned_prompt(prompt)]
        upright, turned = extract_with_neutral(adapter, asked, neutral, GridRequest())
        (first, box), (second, of_turned) = (_contrast(*of_image) for of_image in (upright, turned))
        size = prompt.first_image.height, prompt.first_image.width
        second = turn_back(second, of_turned, size, box, (first.shape[2], first.shape[3]))
        (maps, _), (of_neutral, _) = map(head_maps, upright)
        found.append(following(agreement(first, second), difference(maps, of_neutral[0])).cpu())
    scores = torch.cat(found).mean(dim=0)
    weights = following_weights(scores.tolist())
    return [_head(adapter.info, index, weights[index], float(scores[index])) for index in best_first(scores)]


def _count_followers(ranked: Sequence[ProfileHead]) -> int:
    """How many of the ranked heads follow phrases, compared with the best; 0 if that one does not."""
    best = ranked[0].value
    return sum(head.value >= MIN_RATIO_TO_BEST * best for head in ranked) if best >= LEAST_FOLLOWING else 0


def _contrast(grids: Sequence[Grids], neutral: Sequence[Grids]) -> tuple[Tensor, Box]:
    (maps, box), (of_neutral, _) = head_maps(grids), head_maps(neutral)
    return contrast(relative_maps(maps, of_neutral[0]), relative_maps(of_neutral, of_neutral[0])[0]), box


def _rank_by_masks(
    adapter: BackboneAdapter, data: CalibrationSet, criterion: Criterion, neutral: str
) -> list[ProfileHead]:
    found = []
    for prompt, masks in zip(data.prompts, data.masks or (), strict=True):
        ((of_prompt, of_neutral),) = extract_with_neutral(adapter, [prompt], neutral, GridRequest())
        relative, box = maps_beside_neutral(of_prompt, of_neutral)
        alone = smooth(relative, SMOOTHING).cpu()
        truth = pool_masks(masks, box, (alone.shape[2], alone.shape[3]))[:, None]
        found.append(_ious(alone, truth) if criterion == "iou" else _pointing(alone, truth)[None])
    values = torch.cat(found, dim=1).mean(dim=1).amax(dim=0)
    order = values.argsort(descending=True, stable=True)[: max(int((values > 0).sum()), 1)]
    return [_head(adapter.info, i, max(float(values[i]), 1e-6), float(values[i])) for i in order.tolist()]


def _chosen_maps(adapter: BackboneAdapter, prompt: Prompt, heads: Sequence[ProfileHead], neutral: str) -> _Maps:
    indices = [head.index for head in heads]
    ((of_prompt, of_neutral),) = extract_with_neutral(adapter, [prompt], neutral, GridRequest.of_heads(indices))
    relative, box = maps_beside_neutral(of_prompt, of_neutral, indices)
    return _Maps(relative.cpu(), box)


def _best_combination(
    maps: Sequence[_Maps], masks: Sequence[NDArray[np.bool_]], heads: Sequence[ProfileHead], criterion: Criterion
) -> tuple[int, float]:
    """Find how many of the best heads are best together, and at which threshold."""
    best, chosen = -1.0, (1, LABEL_FREE_HEIGHT)
    for count in range(1, len(heads) + 1):
        ious, hits = [], []
        for of_image, of_masks in zip(maps, masks, strict=True):
            combined, truth = of_image.combined(heads[:count]), of_image.pooled(of_masks)
            ious.append(_ious(combined, truth))
            hits.append(_pointing(combined, truth))
        by_threshold = torch.cat(ious, dim=1).mean(dim=1)
        value = float(by_threshold.max() if criterion == "iou" else torch.cat(hits).mean())
        if value > best:
            best, chosen = value, (count, HEIGHT_THRESHOLDS[int(by_threshold.argmax())])
    return chosen


def _follows(maps: Sequence[_Maps], masks: Sequence[NDArray[np.bool_]], heads: Sequence[ProfileHead]) -> bool:
    """Whether the best head's masks fit what is asked far better than another thing of the image."""
    right, wrong = [], []
    for of_image, of_masks in zip(maps, masks, strict=True):
        alone, truth = of_image.combined(heads[:1]), of_image.pooled(of_masks)
        right.append(_ious(alone, truth))
        wrong.append(_ious(alone, truth.roll(1, dims=0) if len(truth) > 1 else truth.flip((-2, -1))))
    of_right, of_wrong = (torch.cat(found, dim=1).mean(dim=1) for found in (right, wrong))
    height = of_right.argmax()
    return bool(of_right[height] > LEAST_GAIN * of_wrong[height])


def _least_prominence(maps: Sequence[_Maps], grey: Sequence[_Maps], heads: Sequence[ProfileHead]) -> float:
    """A prominence that few maps of grey images reach, and that few maps of the images themselves fall below."""
    of_grey = torch.cat([prominence(of_image.combined(heads)) for of_image in grey])
    of_images = torch.cat([prominence(of_image.combined(heads)) for of_image in maps])
    return float(torch.minimum(of_grey.quantile(1 - MAX_FOUND_IN_GREY), of_images.quantile(MAX_LOST)))


def _ious(maps: Tensor, truth: Tensor) -> Tensor:
    """IoU on the grid, `(T, P, ...)` for T thresholds, of maps `(P, ..., h, w)` with true cells `(P, ..., h, w)`."""
    scaled = heights(maps)
    found = [scaled > threshold for threshold in HEIGHT_THRESHOLDS]
    return torch.stack([(f & truth).sum((-2, -1)) / (f | truth).sum((-2, -1)).clamp(min=1) for f in found])


def _pointing(maps: Tensor, truth: Tensor) -> Tensor:
    """Whether the peak of each map is on its object: `(P, ...)`, 0 or 1."""
    peaks = maps.flatten(-2).argmax(dim=-1, keepdim=True)
    return truth.expand_as(maps).flatten(-2).gather(-1, peaks)[..., 0].float()


def pool_masks(masks: NDArray[np.bool_], box: Box, shape: tuple[int, int]) -> Tensor:
    """Find the cells that show each object: those that it covers by half or more, and always the most covered one.

    Args:
        masks: `(P, H, W)` bool.
        box: `(left, top, right, bottom)` of the grid, in pixels of the image.
        shape: `(h, w)` of the grid.

    Returns:
        `(P, h, w)` bool; all false for an object outside the box.
    """
    cover = cover_cells(masks, box, shape)
    return (cover > 0) & (cover >= cover.amax(dim=(1, 2), keepdim=True).clamp(max=0.5))


def _head(info: BackboneInfo, index: int, weight: float, value: float) -> ProfileHead:
    """The head at an index into the maps of `head_maps`, where all layers and heads were extracted."""
    layer, head = divmod(index, info.num_heads)
    return ProfileHead(layer=info.attention_layers[layer], head=head, weight=weight, value=value)


def _greyed(prompt: Prompt) -> Prompt:
    """The same prompt with evenly grey images."""
    return with_images(prompt, lambda image: Image.new("RGB", image.size, GREY))
