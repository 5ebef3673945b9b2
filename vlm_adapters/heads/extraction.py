"""The maps of a profile's heads: a phrase's beside those of a neutral sentence on the same image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.geometry import Box
from vlm_adapters.heads.maps import combine, head_maps, heights, keep_large_parts, prominence, relative_maps
from vlm_adapters.heads.profile import HeadProfile, ProfileHead
from vlm_adapters.prompt import Message, Phrase, Prompt


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
    said = Message(last.role, (*last.images, text))
    return replace(prompt, messages=(*prompt.messages[:-1], said), phrases=(Phrase.at(text, 0, len(text)),))


def request_of(heads: Sequence[ProfileHead]) -> GridRequest:
    """The request for some heads: their layers and their indices, both ascending."""
    return GridRequest(layers=sorted({head.layer for head in heads}), heads=sorted({head.head for head in heads}))


def profile_maps(heads: Sequence[ProfileHead], asked: Sequence[Grids], neutral: Sequence[Grids]) -> tuple[Tensor, Box]:
    """Relative maps of some heads in their order, `(P, C, h, w)`, and the box that they cover.

    Args:
        heads: Which.
        asked: Grids of one image, extracted with `request_of` these heads.
        neutral: The same of the neutral sentence.
    """
    layers, indices = asked[0].layers, asked[0].heads
    chosen = [layers.index(head.layer) * len(indices) + indices.index(head.head) for head in heads]
    maps, box = head_maps(asked)
    return relative_maps(maps[:, chosen], head_maps(neutral)[0][0, chosen]), box


def extract_with_neutral(
    adapter: BackboneAdapter, prompts: Sequence[Prompt], neutral: str, request: GridRequest
) -> list[tuple[list[Grids], list[Grids]]]:
    """Extract, per prompt, the grids of its first image, and those of the neutral sentence on it."""
    both = [*prompts, *(neutral_prompt(prompt, neutral) for prompt in prompts)]
    found = [
        [grids for grids in extracted if grids.grid.image == 0]
        for extracted in adapter.extract(adapter.preprocess(both), request)
    ]
    return list(zip(found[: len(prompts)], found[len(prompts) :], strict=True))
