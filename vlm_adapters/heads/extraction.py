"""Prompts beside a prompt, and maps of chosen heads, divided by those of a neutral sentence on the same image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image
from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest, Head
from vlm_adapters.geometry import Box
from vlm_adapters.heads.maps import combine, head_maps, heights, keep_large_parts, prominence, relative_maps
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.prompt import Message, Phrase, Prompt

NEUTRAL_TEXT = "an image"
"""A sentence that says nothing about the image."""


def extract_with_neutral(
    adapter: BackboneAdapter, prompts: Sequence[Prompt], neutral: str, request: GridRequest
) -> list[tuple[list[Grids], list[Grids]]]:
    """Extract the grids of prompts and of a neutral sentence on the same images.

    Args:
        adapter: The backbone.
        prompts: Prompts of a batch; the grids are those of each one's first image.
        neutral: The neutral sentence.
        request: What to extract.

    Returns:
        For every prompt its grids, and those of the neutral sentence.
    """
    both = [*prompts, *(neutral_prompt(prompt, neutral) for prompt in prompts)]
    of_first_images = [_of_image(grids, 0) for grids in adapter.extract(adapter.preprocess(both), request)]
    return list(zip(of_first_images[: len(prompts)], of_first_images[len(prompts) :], strict=True))


def extract_images_with_neutral(
    adapter: BackboneAdapter, prompt: Prompt, neutral: str, request: GridRequest
) -> list[tuple[list[Grids], list[Grids]]]:
    """Do so for one prompt: for every image of it its grids, and those of the neutral sentence."""
    inputs = adapter.preprocess([prompt, neutral_prompt(prompt, neutral)])
    found, beside = adapter.extract(inputs, request)
    places = [index for index, part in enumerate(prompt.media) if isinstance(part, Image.Image)]
    return [(_of_image(found, index), _of_image(beside, index)) for index in places]


def _of_image(grids: Sequence[Grids], image: int) -> list[Grids]:
    return [of_grid for of_grid in grids if of_grid.grid.image == image]


def neutral_prompt(prompt: Prompt, text: str) -> Prompt:
    """The same prompt with a neutral text in place of the last message's words, and all of that text as the phrase."""
    return _with_text(prompt, text, [Phrase.at(text, 0, len(text))])


def listed_prompt(prompt: Prompt, text: str) -> Prompt:
    """The same prompt with its phrases in another sentence: a list of them after a neutral text, last one first."""
    text, phrases = f"{text}:", []
    for phrase in reversed(prompt.phrases):
        start = len(text) + 1
        text = f"{text} {phrase.text},"
        phrases.append(Phrase(phrase.text, start, start + len(phrase.text)))
    return _with_text(prompt, text[:-1], phrases[::-1])


def turned_prompt(prompt: Prompt) -> Prompt:
    """The same prompt with every image upside down, which puts each thing in another place."""
    return with_images(prompt, lambda image: image.transpose(Image.Transpose.ROTATE_180))


def with_images(prompt: Prompt, change: Callable[[Image.Image], Image.Image]) -> Prompt:
    """The same prompt with every image changed."""
    messages = [
        replace(
            message, content=tuple(change(part) if isinstance(part, Image.Image) else part for part in message.content)
        )
        for message in prompt.messages
    ]
    return replace(prompt, messages=tuple(messages))


def _with_text(prompt: Prompt, text: str, phrases: Sequence[Phrase]) -> Prompt:
    last = prompt.messages[-1]
    message = Message(last.role, (*last.media, text))
    return Prompt((*prompt.messages[:-1], message), tuple(phrases))


def maps_beside_neutral(
    grids: Sequence[Grids], neutral: Sequence[Grids], heads: Sequence[Head] | None = None
) -> tuple[Tensor, Box]:
    """Divide the maps of heads by those of the same heads for the neutral sentence.

    Args:
        grids: Grids of one image.
        neutral: Grids of the neutral sentence on it.
        heads: Heads whose maps are wanted, in their order; None takes all that were extracted.

    Returns:
        Relative maps `(P, C, h, w)`, and the box that they cover, in pixels of the image.
    """
    maps, box = head_maps(grids, heads)
    return relative_maps(maps, head_maps(neutral, heads)[0][0]), box


def phrase_heights(relative: Tensor, profile: HeadProfile) -> Tensor:
    """Combine the maps of a profile's heads into one map per phrase.

    Args:
        relative: `(P, C, h, w)` of `maps_beside_neutral`, the profile's heads in its order.
        profile: Weights, smoothing, threshold, and how far a peak must stand out.

    Returns:
        `(P, h, w)` float32 in [0, 1]: the mask is where it is above the profile's threshold; all zero where nothing is
        found.
    """
    combined = combine(relative, [head.weight for head in profile.heads], profile.smoothing)
    found = prominence(combined) >= profile.least_prominence
    return keep_large_parts(heights(combined), profile.threshold) * found[:, None, None]
