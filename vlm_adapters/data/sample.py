"""One sample of any data set: a picture, a sentence, and its phrases with their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.errors import DataError
from vlm_adapters.prompt import Phrase, Prompt


@dataclass(frozen=True)
class Sample:
    """A picture with a sentence, and the truth of where its phrases are.

    Attributes:
        id: Names the sample within its data set.
        image: Upright RGB picture of `H x W` pixels.
        text: The sentence.
        phrases: Spans of `text` that name things in the picture.
        masks: `(P, H, W)` bool, one per phrase.
    """

    id: str
    image: Image.Image
    text: str
    phrases: tuple[Phrase, ...]
    masks: NDArray[np.bool_]

    def __post_init__(self) -> None:
        expected = (len(self.phrases), self.image.height, self.image.width)
        if self.masks.shape != expected or self.masks.dtype != np.bool_:
            raise DataError(
                f"Sample {self.id}: masks are {self.masks.dtype} {self.masks.shape}. Give bool {expected} (P, H, W)."
            )

    @property
    def prompt(self) -> Prompt:
        """The sample as a prompt: the standard question, its sentence as the answer."""
        return Prompt.describe(self.image, self.text, self.phrases)
