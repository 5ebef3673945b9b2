"""Squares of two colours, and a grounder that finds a colour word's pixels, a column too far to the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase
from vlm_adapters.prompt import Phrase
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from vlm_adapters.prompt import Prompt

CHANNEL = {"red": 0, "green": 1}
TEXT = "a red square and a green square"


class ColourGrounder(Grounder):
    """Finds the colour that a phrase names, one pixel too far to the left."""

    def __init__(self) -> None:
        self.adapter = FakeAdapter()
        self.texts: list[list[str]] = []

    @property
    def description(self) -> str:
        return "colours"

    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        self.texts.append([prompt.text for prompt in prompts])
        return [self._grounding(prompt) for prompt in prompts]

    def _grounding(self, prompt: Prompt) -> Grounding:
        image = prompt.images[0]
        pixels = np.asarray(image)
        phrases = []
        for phrase in prompt.phrases:
            colour = phrase.text.split()[1]
            found = np.roll(pixels[..., CHANNEL[colour]] > 128, -1, axis=1).astype(np.float32)
            phrases.append(grounded_phrase(phrase, found, PhraseMap.of_pixels(found)))
        return Grounding(image, prompt.text, tuple(phrases), method="heads")


class Squares(Dataset):
    """A red square of 4 x 4 pixels and a green one of 6 x 6 in every image; those in `broken` cannot be read."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self._count, self._broken = count, broken
        self.skips_broken = bool(broken)

    @property
    def source(self) -> str:
        return f"squares:count={self._count}"

    def __len__(self) -> int:
        return self._count

    def place(self, index: int) -> str:
        return f"squares.jsonl:{index + 1}"

    def sample(self, index: int) -> Sample:
        if index in self._broken:
            raise DataError("Its mask is torn.")
        boxes = [(2 + index % 3, 3, 6 + index % 3, 7), (12, 2, 18, 8)]
        image = Image.new("RGB", (24, 12))
        masks = np.zeros((2, 12, 24), np.bool_)
        for mask, (left, top, right, bottom), colour in zip(masks, boxes, ("#ff0000", "#00ff00"), strict=True):
            ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), colour)
            mask[top:bottom, left:right] = True
        return Sample(
            id=f"s{index}",
            image_id=f"p{index}",
            text=TEXT,
            phrases=(Phrase.find(TEXT, "a red square"), Phrase.find(TEXT, "a green square")),
            phrase_ids=(f"{index}/red", f"{index}/green"),
            phrase_tags=(("thing", "singular"), ("stuff", "singular")),
            image=image,
            masks=masks,
        )


@pytest.fixture
def grounder() -> ColourGrounder:
    return ColourGrounder()


@pytest.fixture
def squares() -> type[Squares]:
    return Squares
