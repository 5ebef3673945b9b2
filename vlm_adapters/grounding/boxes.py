"""Masks from the model's own words: it is asked for boxes, which are filled or segmented."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import json_fingerprint, weights_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter, SupportsPointing
from vlm_adapters.conversion import PromptsLike, as_prompts
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.errors import OptionError
from vlm_adapters.geometry import THOUSANDTHS, Box, CoordinateFrame, Size
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.points import CoarseMask, coarse_masks, masks_in_boxes
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.prompt import Message, Phrase, Prompt

MAX_NEW_TOKENS = 512
"""Largest number of tokens of an answer."""

PIXELS, PER_MILLE = "box, pixels", "box, 0 to 1000"
"""Names of the masks of the two ways in which the numbers of an answer can be read."""

_ANY_SIZE = (512, 512)

_NUMBER = r"\s*(-?\d{1,7}(?:\.\d+)?)\s*"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}[\])]?\s*,\s*[\[(]?{_NUMBER},{_NUMBER}[\])]")


@dataclass(frozen=True)
class BoxAnswer:
    """The answer of a model that was asked where something is.

    Attributes:
        text: The words of the answer.
        boxes: Boxes in pixels of the image, clipped to it, each with an area; empty if nothing was found.
    """

    text: str
    boxes: tuple[Box, ...]

    @classmethod
    def read(cls, text: str, frame: CoordinateFrame, size: tuple[int, int]) -> BoxAnswer:
        """Read every complete box of an answer: `[x1, y1, x2, y2]`, `(x1, y1), (x2, y2)`, in JSON or in prose.

        The corners may come in any order. An answer that is cut off gives the boxes before the cut.

        Args:
            text: The answer.
            frame: The frame of its coordinates.
            size: `(H, W)` of the image.
        """
        found = []
        for match in _BOX.finditer(text):
            x0, y0, x1, y1 = frame.to_image(_numbers(match), size)
            left, right = (min(max(x, 0.0), size[1]) for x in sorted((x0, x1)))
            top, bottom = (min(max(y, 0.0), size[0]) for y in sorted((y0, y1)))
            if left < right and top < bottom:
                found.append((left, top, right, bottom))
        return cls(text, tuple(dict.fromkeys(found)))

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The filled boxes, `(H, W)` bool: the pixels whose centres are in a box."""
        mask = np.zeros(size, np.bool_)
        for box in self.boxes:
            left, top, right, bottom = (round(side) for side in box)
            mask[top:bottom, left:right] = True
        return mask


class BoxGrounder(Grounder):
    """A backbone that can point: it is asked once for every phrase where it is.

    With a Segment Anything model and a head profile, the maps of the phrase's heads say which part of a box is meant: a
    second pass, in which the model reads the sentence and not the question.

    Attributes:
        adapter: The backbone; it answers, and gives the frame of the coordinates.
        sam: A Segment Anything model that makes masks of the boxes; None fills the boxes.
        profile: The heads whose maps the masks are chosen by; None takes the boxes alone. It is not read without `sam`.
    """

    def __init__(
        self, adapter: BackboneAdapter, sam: SegmentAnything | None = None, profile: HeadProfile | None = None
    ) -> None:
        if not (isinstance(adapter, SupportsPointing) and can_point(adapter)):
            raise OptionError(
                f"The adapter {adapter.name} does not declare that {adapter.info.checkpoint} can say where things are. "
                'Use the method "heads", or train a decoder.'
            )
        if profile is not None:
            profile.check_fits(adapter.info)
        self.adapter: BackboneAdapter = adapter
        self._pointing: SupportsPointing = adapter
        self.sam = sam
        self.profile = profile

    @property
    @override
    def description(self) -> str:
        masks = "masks by Segment Anything" if self.sam else "a mask is the whole box"
        heads = ", ".join(map(str, self.profile.heads)) if self.sam and self.profile else ""
        return f"box, in the model's own words; {masks}" + (f", chosen by the maps of heads {heads}" if heads else "")

    @override
    def fingerprint(self) -> dict[str, str]:
        if self.sam is None:
            return {}
        found = {"sam": weights_fingerprint(self.sam.state_dict())}
        return found | (
            {"head_profile": json_fingerprint(self.profile.model_dump(mode="json"))} if self.profile else {}
        )

    @override
    def ground_all(self, prompts: PromptsLike) -> list[Grounding]:
        return [
            self._grounding(prompt, [self.ask(prompt, phrase) for phrase in prompt.phrases], self._seen(prompt))
            for prompt in as_prompts(prompts)
        ]

    @override
    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        """Find the masks of both readings of the same answers: pixels, and 0 to 1000; the adapter's own is the last.

        Which of them a checkpoint means cannot be seen in its answers, and a fine-tuned one may mean the other. Both
        are given whatever they come to.
        """
        del batch_size  # every phrase is a question of its own
        return [self._masks_of_readings(prompt) for prompt in prompts]

    def _masks_of_readings(self, prompt: Prompt) -> dict[str, NDArray[np.bool_]]:
        answers = [self._answer(prompt, phrase) for phrase in prompt.phrases]
        seen, size = self._seen(prompt), _size(prompt)
        found = {}
        for name, frame in self._readings(size).items():
            read = self._grounding(prompt, [BoxAnswer.read(answer, frame, size) for answer in answers], seen)
            found[name] = np.stack([phrase.mask for phrase in read.phrases])
        return found

    def ask(self, prompt: Prompt, phrase: Phrase) -> BoxAnswer:
        """Ask where a phrase of a prompt is in the prompt's first image."""
        return BoxAnswer.read(self._answer(prompt, phrase), self._frame(_size(prompt)), _size(prompt))

    def _answer(self, prompt: Prompt, phrase: Phrase) -> str:
        question = Prompt((Message("user", (prompt.first_image, question_about(prompt.text, phrase))),))
        return self._pointing.generate(question, max_new_tokens=MAX_NEW_TOKENS).text

    def _frame(self, size: Size) -> CoordinateFrame:
        frame = self._pointing.coordinate_frame(size)
        if frame is None:
            raise OptionError(f"{self.adapter.name} cannot point in an image of {size[1]} x {size[0]} pixels.")
        return frame

    def _readings(self, size: Size) -> dict[str, CoordinateFrame]:
        """The frames in which an answer can be read, by name; the one that the adapter declares is the last."""
        declared = self._frame(size)
        if self._pointing.coordinate_frame(_ANY_SIZE) == THOUSANDTHS:
            return {PIXELS: CoordinateFrame(size[1], size[0]), PER_MILLE: declared}
        return {PER_MILLE: THOUSANDTHS, PIXELS: declared}

    def _seen(self, prompt: Prompt) -> _Seen | None:
        """The image as Segment Anything encodes it, and where the maps say that the phrases are."""
        if self.sam is None:
            return None
        coarse: list[CoarseMask | None] = [None] * len(prompt.phrases)
        if self.profile is not None:
            coarse = coarse_masks(self.adapter, prompt, self.profile)
        return _Seen(self.sam, self.sam.encode(prompt.first_image), coarse)

    def _grounding(self, prompt: Prompt, answers: Sequence[BoxAnswer], seen: _Seen | None) -> Grounding:
        phrases = []
        for index, (phrase, answer) in enumerate(zip(prompt.phrases, answers, strict=True)):
            filled = answer.mask(_size(prompt))
            found = filled.astype(np.float32)
            if seen and answer.boxes:
                found = masks_in_boxes(seen.sam, seen.image, answer.boxes, seen.coarse[index])
            grounded = grounded_phrase(phrase, found, PhraseMap.of_pixels(filled))
            said = bool(answer.boxes)
            phrases.append(replace(grounded, presence=float(said), absent=not said))
        return self.result(prompt, prompt.first_image, phrases, "box")


@dataclass(frozen=True)
class _Seen:
    """What a prompt's image shows beside the answers.

    Attributes:
        sam: The model that makes the masks.
        image: The image as it encodes it.
        coarse: Where the maps say that every phrase is; None where they say nothing.
    """

    sam: SegmentAnything
    image: EncodedImage
    coarse: Sequence[CoarseMask | None]


def can_point(adapter: BackboneAdapter) -> bool:
    """Whether an adapter declares that its checkpoint can say where things are."""
    return isinstance(adapter, SupportsPointing) and adapter.coordinate_frame(_ANY_SIZE) is not None


def question_about(text: str, phrase: Phrase) -> str:
    """The question for a phrase; it quotes the sentence, since a phrase alone can mean several things."""
    context = "" if phrase.text == text.strip() else f' The words are from the sentence "{text.strip()}".'
    return (
        f'Locate "{phrase.text}" in the image.{context} Report the bounding box of every instance in JSON format: '
        '[{"bbox_2d": [x1, y1, x2, y2], "label": "..."}]. If there is none, report [].'
    )


def _size(prompt: Prompt) -> Size:
    """`(H, W)` of a prompt's first image."""
    return prompt.first_image.height, prompt.first_image.width


def _numbers(match: re.Match[str]) -> Box:
    left, top, right, bottom = (float(number) for number in match.groups())
    return left, top, right, bottom
