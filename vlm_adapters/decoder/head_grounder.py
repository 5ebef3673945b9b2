"""Masks without training: the attention of the few heads of a profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor

from vlm_adapters.backbone import BackboneAdapter, Grids, place_map
from vlm_adapters.decoder.grounder import Grounder, Grounding, grounded_phrase
from vlm_adapters.decoder.phrase_maps import (
    Box,
    combine,
    head_maps,
    heights,
    keep_large_parts,
    prominence,
    relative_maps,
)
from vlm_adapters.decoder.profile import HeadProfile, ProfileHead
from vlm_adapters.decoder.refiner import refine_untrained
from vlm_adapters.decoder.sam import SegmentAnything
from vlm_adapters.prompt import Message, Phrase, Prompt
from vlm_adapters.request import GridRequest


class HeadGrounder(Grounder):
    """A frozen backbone and the profile of its heads that show where things are.

    A phrase's maps are divided by those of a neutral sentence on the same picture, weighed, smoothed and cut off at the
    profile's threshold. Where no peak stands out, nothing is found. Every prompt costs two sequences.

    Attributes:
        adapter: Gives the grids.
        profile: Heads, and how a mask is made of them.
        sam: Refines the masks, untrained; None takes them as they are.
    """

    def __init__(self, adapter: BackboneAdapter, profile: HeadProfile, sam: SegmentAnything | None = None) -> None:
        profile.check_fits(adapter.info)
        self.adapter = adapter
        self.profile = profile
        self.sam = sam

    @property
    def told(self) -> str:
        """See `Grounder`."""
        heads = ", ".join(f"{head.layer}.{head.head}" for head in self.profile.heads)
        chosen = f"chosen by {self.profile.criterion} on {self.profile.samples} pictures from {self.profile.source}"
        refined = ", refined by Segment Anything as it is" if self.sam else ""
        return f"heads, without training: {heads} (layer.head), {chosen}{refined}"

    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        """Ground a batch of prompts, each in its first picture."""
        extracted = extract_with_neutral(self.adapter, prompts, self.profile.neutral, request_of(self.profile.heads))
        return [self._grounding(prompt, *grids) for prompt, grids in zip(prompts, extracted, strict=True)]

    def _grounding(self, prompt: Prompt, asked: Sequence[Grids], neutral: Sequence[Grids]) -> Grounding:
        picture = prompt.pictures[0]
        size = picture.height, picture.width
        relative, box = profile_maps(self.profile.heads, asked, neutral)
        found = phrase_heights(relative, self.profile)
        placed = place_map(found, box, size)
        masks, threshold = placed, self.profile.threshold
        if self.sam is not None:
            masks, threshold = self._refined(self.sam, picture, found, box), 0.5
        phrases = tuple(
            grounded_phrase(phrase, mask, heat, threshold)
            for phrase, mask, heat in zip(prompt.phrases, masks.cpu().numpy(), placed.cpu().numpy(), strict=True)
        )
        return Grounding(picture, prompt.text, phrases, method="heads")

    def _refined(self, sam: SegmentAnything, image: Image.Image, found: Tensor, box: Box) -> Tensor:
        """Probabilities `(P, H, W)` after Segment Anything; where the heads found nothing, nothing is left."""
        logits = found.clamp(1e-4, 1 - 1e-4).logit() - math.log(self.profile.threshold / (1 - self.profile.threshold))
        refined = refine_untrained(sam, sam.encode(image), logits, box).sigmoid()
        return refined * (found.amax(dim=(1, 2)) > 0)[:, None, None].to(refined.device)


def phrase_heights(relative: Tensor, profile: HeadProfile) -> Tensor:
    """Make one map per phrase of the profile's heads.

    Args:
        relative: `(P, C, h, w)` of `relative_maps`, the profile's heads in its order.
        profile: Weights, smoothing, threshold, and how far a peak must stand out.

    Returns:
        `(P, h, w)` float32 in [0, 1]: the mask is where it is above the profile's threshold; all zero where nothing is
        found.
    """
    combined = combine(relative, [head.weight for head in profile.heads], profile.smoothing)
    found = prominence(combined) >= profile.least_prominence
    return keep_large_parts(heights(combined), profile.threshold) * found[:, None, None]


def neutral_prompt(prompt: Prompt, text: str) -> Prompt:
    """The same prompt with `text` in the place of the last message's words, and all of it as the phrase."""
    last = prompt.messages[-1]
    said = Message(last.role, (*last.pictures, text))
    return replace(prompt, messages=(*prompt.messages[:-1], said), phrases=(Phrase.at(text, 0, len(text)),))


def request_of(heads: Sequence[ProfileHead]) -> GridRequest:
    """The request for some heads: their layers and their indices, both ascending."""
    return GridRequest(layers=sorted({head.layer for head in heads}), heads=sorted({head.head for head in heads}))


def profile_maps(heads: Sequence[ProfileHead], asked: Sequence[Grids], neutral: Sequence[Grids]) -> tuple[Tensor, Box]:
    """Relative maps of some heads in their order, `(P, C, h, w)`, and the box that they cover.

    Args:
        heads: Which.
        asked: Grids of one picture, extracted with `request_of` these heads.
        neutral: The same of the neutral sentence.
    """
    layers, indices = asked[0].layers, asked[0].heads
    chosen = [layers.index(head.layer) * len(indices) + indices.index(head.head) for head in heads]
    maps, box = head_maps(asked)
    return relative_maps(maps[:, chosen], head_maps(neutral)[0][0, chosen]), box


def extract_with_neutral(
    adapter: BackboneAdapter, prompts: Sequence[Prompt], neutral: str, request: GridRequest
) -> list[tuple[list[Grids], list[Grids]]]:
    """Extract, per prompt, the grids of its first picture, and those of the neutral sentence on it."""
    both = [*prompts, *(neutral_prompt(prompt, neutral) for prompt in prompts)]
    found = [
        [grids for grids in extracted if grids.grid.picture == 0]
        for extracted in adapter.extract(adapter.preprocess(both), request)
    ]
    return list(zip(found[: len(prompts)], found[len(prompts) :], strict=True))
