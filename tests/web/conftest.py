"""A grounder that finds red and green squares, and says that blue ones are absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.geometry import Box
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.result import Grounding, PhraseMap, grounded_phrase

if TYPE_CHECKING:
    from vlm_adapters.backbone.protocol import BackboneAdapter
    from vlm_adapters.data.sample import Sample
    from vlm_adapters.prompt import Prompt

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class ByColour(Grounder):
    description = "the pixels of a colour"

    def __init__(self, adapter: BackboneAdapter) -> None:
        self.adapter = adapter

    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        return [self._ground(prompt) for prompt in prompts]

    def _ground(self, prompt: Prompt) -> Grounding:
        pixels, found = np.asarray(prompt.first_image), []
        box: Box = (0, 0, prompt.first_image.width, prompt.first_image.height)
        for phrase in prompt.phrases:
            channel = next(CHANNELS[word] for word in phrase.text.split() if word in CHANNELS)
            probability = (pixels[..., channel] > 128).astype(np.float32)
            attention = PhraseMap(np.ones((2, 2), np.float32), box, probability.shape)
            absent = not probability.any()
            grounded = grounded_phrase(phrase, probability, attention)
            found.append(replace(grounded, absent=absent, presence=0.03 if absent else 0.98))
        return Grounding(prompt.first_image, prompt.text, tuple(found))


@pytest.fixture
def by_colour(planted: BackboneAdapter) -> ByColour:
    return ByColour(planted)


@pytest.fixture
def square_image(squares: list[Sample]) -> Image.Image:
    """160 x 110 pixels: red in columns 20 to 59, rows 10 to 49; green in columns 100 to 139, rows 40 to 89."""
    return squares[0].image
