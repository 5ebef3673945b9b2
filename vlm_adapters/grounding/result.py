"""The result of grounding: the phrases of a sentence, each with its mask, box, score and map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.geometry import Box, Size, place_map, resize_box
from vlm_adapters.prompt import Phrase

Method = Literal["decoder", "box", "heads"]
"""What finds the masks: a trained decoder, boxes in the model's own words, or the attention of a few heads."""


@dataclass(frozen=True)
class PhraseMap:
    """A map over an image, kept as small as it is; it is placed over the pixels when it is asked for.

    Attributes:
        values: `(h, w)`, not negative, at any scale.
        box: Region of the image that they cover, in pixels; None where each is the value of a pixel.
        size: `(H, W)` of the image.
    """

    values: NDArray[np.float32] | NDArray[np.bool_] = field(repr=False)
    box: Box | None
    size: Size

    @classmethod
    def of_pixels(cls, values: NDArray[np.float32] | NDArray[np.bool_]) -> Self:
        """A map that is at the image's size already: `(H, W)`."""
        return cls(values, None, (values.shape[0], values.shape[1]))

    def placed(self, size: Size | None = None) -> NDArray[np.float32]:
        """Compute the map at the image's size, or at another.

        Args:
            size: `(H', W')` of the image after it was resized; None leaves it at its size.

        Returns:
            `(H', W')` float32 in [0, 1], 1 at its peak; 0 beyond the box.
        """
        size = size or self.size
        if self.box is None and size == self.size:
            found = self.values.astype(np.float32)
        else:
            box = self.box or (0, 0, self.size[1], self.size[0])
            values = torch.from_numpy(self.values.astype(np.float32))
            found = place_map(values, resize_box(box, self.size, size), size).numpy()
        found /= max(float(found.max()), 1e-12)
        return found


@dataclass(frozen=True)
class GroundedPhrase:
    """A phrase, and where it is in the image.

    Attributes:
        phrase: The words, and where they are in the text.
        mask: `(H, W)` bool at the image's size; all false where nothing was found.
        box: `(left, top, right, bottom)` in pixels around the mask, right and bottom excluded; None if it is empty.
        score: Mean probability of the mask's pixels, in [0, 1]; 0 if it is empty. It measures how sharp the mask is,
            not whether the phrase is in the image. For method `heads`, the mean height of the map; for `box`, 1.
        attention: Where the phrase looks, on a grid: the attention of the heads that agree best with the mask (see
            `agreeing_maps`), that of the heads of a profile, or the filled boxes.
    """

    phrase: Phrase
    mask: NDArray[np.bool_] = field(repr=False)
    box: tuple[int, int, int, int] | None
    score: float
    attention: PhraseMap = field(repr=False)

    @property
    def map(self) -> NDArray[np.float32]:
        """The attention at the image's size: `(H, W)` float32 in [0, 1], 1 at its peak; computed at every access."""
        return self.attention.placed()


@dataclass(frozen=True)
class Grounding:
    """A sentence grounded in an image.

    Attributes:
        image: The upright RGB image.
        text: The sentence.
        phrases: The phrases in the order of the prompt, each with mask, box, score and map.
        method: What found the masks.

    Example:
        >>> from vlm_adapters import load_grounder, open_dataset
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> grounding = load_grounder("tiny-llava").ground(scene.image, scene.text, [scene.phrases[0].text])
        >>> for found in grounding.phrases:
        ...     print(found.phrase.text, found.box, found.mask.shape, found.mask.dtype)
        a pink cross (26, 135, 176, 291) (312, 282) bool
    """

    image: Image.Image
    text: str
    phrases: tuple[GroundedPhrase, ...]
    method: Method = "decoder"


def grounded_phrase(
    phrase: Phrase, probability: NDArray[np.float32], attention: PhraseMap, threshold: float = 0.5
) -> GroundedPhrase:
    """Make the result of one phrase from its probabilities at the image's size and its attention.

    Args:
        phrase: The phrase.
        probability: `(H, W)` in [0, 1].
        attention: Its attention.
        threshold: The mask is where the probability is above this, in [0, 1).
    """
    mask = probability > threshold
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = bool(mask.any())
    return GroundedPhrase(
        phrase=phrase,
        mask=mask,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if found else None,
        score=float(probability[mask].mean()) if found else 0.0,
        attention=attention,
    )
