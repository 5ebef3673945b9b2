"""Looking again: crops around what was grounded, which show small things to a model with more of its image tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from PIL import Image
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import json_fingerprint
from vlm_adapters.conversion import PromptLike, PromptsLike, as_prompt, as_prompts
from vlm_adapters.errors import NothingFoundError, OptionError
from vlm_adapters.geometry import Box, Region, Size
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.result import Grounding, PackedMask, PhraseMap
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Message, Phrase, Prompt

MARGIN = 0.5
"""With it on every side, a thing takes half of the side of its crop: the model sees what is around it, too."""

_AT_ONCE = 8
"""Crops that are grounded at once."""


@dataclass(frozen=True)
class Crop:
    """A part of an image.

    Attributes:
        original: The image that it is a part of.
        box: `(left, top, right, bottom)` in pixels of that image, right and bottom excluded.
    """

    original: Image.Image
    box: Region

    @cached_property
    def image(self) -> Image.Image:
        """The pixels of the part."""
        return self.original.crop(self.box)

    @property
    def is_all(self) -> bool:
        """Whether it is the whole image."""
        return self.box == (0, 0, *self.original.size)

    def placed_back(self, grounding: Grounding) -> Grounding:
        """What was grounded in the crop, in coordinates of the original image.

        Raises:
            ValueError: The grounding is of an image of another size.
        """
        if grounding.image.size != self.image.size:
            raise ValueError(f"the crop is of {self.image.size} pixels, what was grounded of {grounding.image.size}")
        size, corner = (self.original.height, self.original.width), self.box[:2]
        phrases = tuple(
            replace(found, packed=_moved(found.packed, corner, size), attention=_on_original(found.attention, self))
            for found in grounding.phrases
        )
        return replace(grounding, image=self.original, phrases=phrases)


def crop_from(grounding: Grounding, margin: float = MARGIN) -> Crop:
    """Cut out what was grounded in an image, all phrases together.

    Args:
        grounding: What was found.
        margin: What is added on every side, as a share of the longer side of the box around all masks; the crop ends
            where the image does.

    Raises:
        NothingFoundError: No phrase has a mask.
        OptionError: The margin is negative or not a number.
    """
    _check_margin(margin)
    boxes = [found.box for found in grounding.phrases if found.box]
    if not boxes:
        words = ", ".join(shown(found.phrase.text) for found in grounding.phrases[:3]) or "no phrase"
        raise NothingFoundError(
            f"Nothing was found of {words}, so there is nothing to crop. Ground other words, or take the whole image."
        )
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return _around(grounding.image, (min(lefts), min(tops), max(rights), max(bottoms)), margin)


class CloserLook(Grounder):
    """A grounder that looks again: once a phrase is found, it is grounded anew in a crop around its mask.

    A phrase keeps what was found before where nothing is found of it in the crop, or where the crop would be the whole
    image. Masks, boxes and maps are in coordinates of the original image. Every round costs a pass for each phrase.

    Attributes:
        adapter: The backbone.
        grounder: What finds the masks, in the image and in its crops.
        margin: What a crop shows around a mask; see `crop_from`.
        rounds: How often it looks again, each time at what it found the time before.
    """

    def __init__(self, grounder: Grounder, *, margin: float = MARGIN, rounds: int = 1) -> None:
        """Look again with a grounder.

        Raises:
            OptionError: The margin is negative or not a number, or there is no round.
        """
        _check_margin(margin)
        if rounds < 1:
            raise OptionError(f"Looking again {rounds} times is not looking again. Give 1 or more rounds.")
        self.adapter = grounder.adapter
        self.grounder = grounder
        self.margin = margin
        self.rounds = rounds

    @property
    @override
    def keeps_absent_masks(self) -> bool:
        """Whether phrases that count as absent keep the masks that they would have, as in the grounder itself."""
        return self.grounder.keeps_absent_masks

    @keeps_absent_masks.setter
    def keeps_absent_masks(self, kept: bool) -> None:
        self.grounder.keeps_absent_masks = kept

    @property
    @override
    def description(self) -> str:
        times = "once" if self.rounds == 1 else f"{self.rounds} times"
        return f"{self.grounder.description}; looks again {times}, in crops with a margin of {self.margin:g}"

    @override
    def fingerprint(self) -> dict[str, str]:
        settings = {"margin": self.margin, "rounds": self.rounds}
        return self.grounder.fingerprint() | {"closer_look": json_fingerprint(settings)}

    @override
    def ground_all(self, prompts: PromptsLike) -> list[Grounding]:
        prompts, look = as_prompts(prompts), self.grounder.ground_all
        return [
            self._closer(prompt, found, prompt.first_image, look)
            for prompt, found in zip(prompts, look(prompts), strict=True)
        ]

    @override
    def ground_images(self, prompt: PromptLike) -> list[Grounding]:
        prompt = as_prompt(prompt)

        def look_at(index: int) -> Callable[[Sequence[Prompt]], list[Grounding]]:
            return lambda prompts: [self.grounder.ground_images(each)[index] for each in prompts]

        return [
            self._closer(prompt, found, image, look_at(index))
            for index, (found, image) in enumerate(zip(self.grounder.ground_images(prompt), prompt.images, strict=True))
        ]

    def _closer(
        self,
        prompt: Prompt,
        found: Grounding,
        image: Image.Image,
        look: Callable[[Sequence[Prompt]], list[Grounding]],
    ) -> Grounding:
        """Look again at each phrase that was found in one image of a prompt."""
        for _ in range(self.rounds):
            crops = {
                number: crop
                for number, phrase in enumerate(found.phrases)
                if phrase.box and not (crop := _around(image, phrase.box, self.margin)).is_all
            }
            prompts = [_showing(prompt, image, crop, found.phrases[number].phrase) for number, crop in crops.items()]
            parts = [look(prompts[first : first + _AT_ONCE]) for first in range(0, len(prompts), _AT_ONCE)]
            seen = [grounding for part in parts for grounding in part]
            phrases = list(found.phrases)
            for (number, crop), grounding in zip(crops.items(), seen, strict=True):
                if grounding.phrases[0].box:
                    (phrases[number],) = crop.placed_back(grounding).phrases
            said = dict.fromkeys((*found.warnings, *(warning for one in seen for warning in one.warnings)))
            found = replace(found, phrases=tuple(phrases), warnings=tuple(said))
        return found


def _check_margin(margin: float) -> None:
    if not 0 <= margin < math.inf:
        raise OptionError(f"The margin of a crop is {shown(margin)}. Give a share of the longer side, 0 or more.")


def _around(image: Image.Image, box: Region, margin: float) -> Crop:
    """The part of an image around a box, with a margin on every side as far as the image goes."""
    left, top, right, bottom = box
    added = margin * max(right - left, bottom - top)
    start = max(0, math.floor(left - added)), max(0, math.floor(top - added))
    end = min(image.width, math.ceil(right + added)), min(image.height, math.ceil(bottom + added))
    return Crop(image, (*start, *end))


def _showing(prompt: Prompt, image: Image.Image, crop: Crop, phrase: Phrase) -> Prompt:
    """The prompt with a crop in the place of an image, and one of its phrases."""
    messages = tuple(
        Message(message.role, tuple(crop.image if part is image else part for part in message.content), message.ids)
        for message in prompt.messages
    )
    # how far a text without ids is from what the model says of a crop is of no interest, and would take a pass
    answer = prompt.answer if prompt.answer and prompt.answer.ids is not None else None
    return Prompt(messages, (phrase,), answer)


def _moved(mask: PackedMask, corner: tuple[int, int], size: Size) -> PackedMask:
    if mask.box is None:
        return replace(mask, size=size)
    (left, top, right, bottom), (across, down) = mask.box, corner
    return PackedMask(mask.bits, (left + across, top + down, right + across, bottom + down), size)


def _on_original(attention: PhraseMap, crop: Crop) -> PhraseMap:
    across, down = crop.box[:2]
    left, top, right, bottom = attention.box or (0, 0, attention.size[1], attention.size[0])
    box: Box = (left + across, top + down, right + across, bottom + down)
    return PhraseMap(attention.values, box, (crop.original.height, crop.original.width))
