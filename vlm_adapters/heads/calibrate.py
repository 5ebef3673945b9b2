"""Choosing the heads of a profile: by what their maps look like, or by known masks.

Label-free, the heads that look at the image at all (attention mass, the better half) are sorted by how little their
maps are scattered (`part_entropy`), after Kang et al. (arXiv 2503.06287). With masks, every head is tried alone, and
then the best one, two, three, ... together. In both, a peak must stand out more than peaks do in evenly grey images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder.losses import cover_cells
from vlm_adapters.decoder.saved import SavedBackbone
from vlm_adapters.errors import DataError
from vlm_adapters.geometry import Box
from vlm_adapters.heads.extraction import extract_with_neutral, profile_maps, request_of
from vlm_adapters.heads.maps import combine, head_maps, heights, part_entropy, prominence, relative_maps, smooth
from vlm_adapters.heads.profile import Criterion, HeadProfile, ProfileHead
from vlm_adapters.prompt import Message, Prompt

NEUTRAL_TEXT = "an image"
"""Says nothing of the image."""

CALIBRATION_SEED = 5
"""Seed of the scenes that heads are chosen on; no embedded checkpoint was trained or is measured on them."""

SMOOTHING = 1.0
HALF_HEIGHT = 0.5
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
LABEL_FREE_HEADS = 3
"""As many as Kang et al. take."""
MOST_HEADS = 8
RANKED_HEADS = 128
"""So many of the best are named in the profile, those of which masks are made among them."""

FOUND_IN_GREY = 0.05
LOST = 0.05
GREY = (128, 128, 128)


@dataclass(frozen=True)
class CalibrationSet:
    """What heads are chosen on.

    Attributes:
        prompts: Images with sentences and phrases.
        masks: `(P, H, W)` bool per prompt, where known.
        source: Where they came from, for the profile.
        seed: Of the scenes, for the profile.
    """

    prompts: Sequence[Prompt]
    masks: Sequence[NDArray[np.bool_]] | None
    source: str
    seed: int | None = None

    def __post_init__(self) -> None:
        if not any(prompt.phrases for prompt in self.prompts):
            raise DataError(f"There is no phrase in {self.source} to choose heads by. Give images with sentences.")

    @classmethod
    def of_scenes(cls, scenes: Iterable[Sample], seed: int, *, labelled: bool) -> CalibrationSet:
        """Take synthetic scenes, with their masks or without."""
        samples = list(scenes)
        masks = [sample.masks for sample in samples] if labelled else None
        return cls([sample.prompt for sample in samples], masks, "scenes", seed)


def calibrate(
    adapter: BackboneAdapter,
    data: CalibrationSet,
    *,
    criterion: Literal["iou", "pointing"] = "iou",
    neutral: str = NEUTRAL_TEXT,
    most: int = MOST_HEADS,
) -> HeadProfile:
    """Choose the heads of a checkpoint that show where phrases are.

    Args:
        adapter: The backbone.
        data: Images and sentences; with masks, heads are chosen by them, else label-free.
        criterion: With masks, what is best: the mask's IoU or the share of maps that peak on the object.
        neutral: A sentence that says nothing of the image.
        most: Heads of the profile at most; without masks, at most `LABEL_FREE_HEADS`.
    """
    if data.masks is None:
        every, most = _rank_label_free(adapter, data.prompts, neutral), min(most, LABEL_FREE_HEADS)
    else:
        every = _rank_by_masks(adapter, data, criterion, neutral)
    ranked = every[:most]
    maps = [_chosen_maps(adapter, prompt, ranked, neutral) for prompt in data.prompts]
    threshold = HALF_HEIGHT
    if data.masks is not None:
        count, threshold = _best_combination(maps, data.masks, ranked, criterion)
        ranked = ranked[:count]
    grey = [_chosen_maps(adapter, _greyed(prompt), ranked, neutral) for prompt in data.prompts]
    return HeadProfile(
        backbone=SavedBackbone.of(adapter.info),
        criterion="part-entropy" if data.masks is None else criterion,
        source=data.source,
        samples=len(data.prompts),
        seed=data.seed,
        neutral=neutral,
        heads=ranked,
        others=every[len(ranked) : RANKED_HEADS],
        smoothing=SMOOTHING,
        threshold=threshold,
        least_prominence=_least_prominence(maps, grey, ranked),
    )


@dataclass(frozen=True)
class _Maps:
    """Relative maps `(P, C, h, w)` of one image's phrases, and the box that they cover."""

    relative: Tensor
    box: Box

    def combined(self, heads: Sequence[ProfileHead]) -> Tensor:
        """`(P, h, w)` of the first heads."""
        return combine(self.relative[:, : len(heads)], [head.weight for head in heads], SMOOTHING)


def _rank_label_free(adapter: BackboneAdapter, prompts: Sequence[Prompt], neutral: str) -> list[ProfileHead]:
    masses, entropies = [], []
    for prompt in prompts:
        ((asked, of_neutral),) = extract_with_neutral(adapter, [prompt], neutral, GridRequest())
        relative = relative_maps(head_maps(asked)[0], head_maps(of_neutral)[0][0])
        masses.append(torch.stack([grids.channels.sum(dim=(2, 3)) for grids in asked]).sum(dim=0).cpu())
        entropies.append(part_entropy(relative.flatten(0, 1)).view(relative.shape[:2]).cpu())
    mass, entropy = torch.cat(masses).mean(dim=0), torch.cat(entropies).mean(dim=0)
    entropy = torch.where(mass >= mass.quantile(0.5), entropy, float("inf"))
    order = entropy.argsort(stable=True)[: int(entropy.isfinite().sum())]
    return [_head(adapter.info, index, 1.0, float(entropy[index])) for index in order.tolist()]


def _rank_by_masks(
    adapter: BackboneAdapter, data: CalibrationSet, criterion: Criterion, neutral: str
) -> list[ProfileHead]:
    found = []
    for prompt, masks in zip(data.prompts, data.masks or (), strict=True):
        ((asked, of_neutral),) = extract_with_neutral(adapter, [prompt], neutral, GridRequest())
        maps, box = head_maps(asked)
        alone = smooth(relative_maps(maps, head_maps(of_neutral)[0][0]), SMOOTHING).cpu()
        truth = pool_masks(masks, box, (alone.shape[2], alone.shape[3]))[:, None]
        found.append(_ious(alone, truth) if criterion == "iou" else _pointing(alone, truth)[None])
    values = torch.cat(found, dim=1).mean(dim=1).amax(dim=0)
    order = values.argsort(descending=True, stable=True)[: max(int((values > 0).sum()), 1)]
    return [_head(adapter.info, i, max(float(values[i]), 1e-6), float(values[i])) for i in order.tolist()]


def _chosen_maps(adapter: BackboneAdapter, prompt: Prompt, heads: Sequence[ProfileHead], neutral: str) -> _Maps:
    ((asked, of_neutral),) = extract_with_neutral(adapter, [prompt], neutral, request_of(heads))
    relative, box = profile_maps(heads, asked, of_neutral)
    return _Maps(relative.cpu(), box)


def _best_combination(
    maps: Sequence[_Maps], masks: Sequence[NDArray[np.bool_]], heads: Sequence[ProfileHead], criterion: Criterion
) -> tuple[int, float]:
    """How many of the best heads are best together, and at which threshold their masks are."""
    best, chosen = -1.0, (1, HALF_HEIGHT)
    for count in range(1, len(heads) + 1):
        ious, hits = [], []
        for of_image, of_masks in zip(maps, masks, strict=True):
            combined = of_image.combined(heads[:count])
            truth = pool_masks(of_masks, of_image.box, (combined.shape[1], combined.shape[2]))
            ious.append(_ious(combined, truth))
            hits.append(_pointing(combined, truth))
        by_threshold = torch.cat(ious, dim=1).mean(dim=1)
        value = float(by_threshold.max() if criterion == "iou" else torch.cat(hits).mean())
        if value > best:
            best, chosen = value, (count, THRESHOLDS[int(by_threshold.argmax())])
    return chosen


def _least_prominence(maps: Sequence[_Maps], grey: Sequence[_Maps], heads: Sequence[ProfileHead]) -> float:
    """What few maps of grey images reach, as long as few of the images' own are below it."""
    of_grey = torch.cat([prominence(of_image.combined(heads)) for of_image in grey])
    own = torch.cat([prominence(of_image.combined(heads)) for of_image in maps])
    return float(torch.minimum(of_grey.quantile(1 - FOUND_IN_GREY), own.quantile(LOST)))


def _ious(maps: Tensor, truth: Tensor) -> Tensor:
    """IoU on the grid, `(T, P, ...)` by threshold, of maps `(P, ..., h, w)` with cells `(P, ..., h, w)`."""
    scaled = heights(maps)
    found = [scaled > threshold for threshold in THRESHOLDS]
    return torch.stack([(f & truth).sum((-2, -1)) / (f | truth).sum((-2, -1)).clamp(min=1) for f in found])


def _pointing(maps: Tensor, truth: Tensor) -> Tensor:
    """Whether the peak of each map is on its object, `(P, ...)` 0 or 1."""
    peaks = maps.flatten(-2).argmax(dim=-1, keepdim=True)
    return truth.expand_as(maps).flatten(-2).gather(-1, peaks)[..., 0].float()


def pool_masks(masks: NDArray[np.bool_], box: Box, shape: tuple[int, int]) -> Tensor:
    """Say which cells show an object: those that it covers half, and the most covered one in any case.

    Args:
        masks: `(P, H, W)`.
        box: `(left, top, right, bottom)` of the grid, in pixels of the image.
        shape: `(h, w)` of the grid.

    Returns:
        `(P, h, w)` bool; all false where the object is outside the box.
    """
    cover = cover_cells(masks, box, shape)
    return (cover > 0) & (cover >= cover.amax(dim=(1, 2), keepdim=True).clamp(max=0.5))


def _head(info: BackboneInfo, index: int, weight: float, value: float) -> ProfileHead:
    """The head behind an index into the maps of `head_maps`, where all layers and heads were asked for."""
    layer, head = divmod(index, info.num_heads)
    return ProfileHead(layer=info.attention_layers[layer], head=head, weight=weight, value=value)


def _greyed(prompt: Prompt) -> Prompt:
    """The same prompt on evenly grey images."""
    messages = []
    for message in prompt.messages:
        grey = [part if isinstance(part, str) else Image.new("RGB", part.size, GREY) for part in message.content]
        messages.append(Message(message.role, tuple(grey)))
    return replace(prompt, messages=tuple(messages))
