"""The result of grounding: the phrases of a sentence, each with its mask, box, score and map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.prompt import Phrase

Method = Literal["decoder", "box", "heads"]
"""What finds the masks: a trained decoder, boxes in the model's own words, or the attention of a few heads."""


@dataclass(frozen=True)
class GroundedPhrase:
    """A phrase, and where it is in the image.

    Attributes:
        phrase: The words, and where they are in the text.
        mask: `(H, W)` bool at the image's size; all false where nothing was found.
        box: `(left, top, right, bottom)` in pixels around the mask, right and bottom excluded; None if it is empty.
        score: Mean probability of the mask's pixels, in [0, 1]; 0 if it is empty. It measures how sharp the mask is,
            not whether the phrase is in the image. For method `heads`, the mean height of the map; for `box`, 1.
        map: `(H, W)` float32 in [0, 1], 1 at its peak: the attention of the heads that agree best with the mask (see
            `agreeing_maps`), that of the heads of a profile, or the filled boxes.
    """

    phrase: Phrase
    mask: NDArray[np.bool_] = field(repr=False)
    box: tuple[int, int, int, int] | None
    score: float
    map: NDArray[np.float32] = field(repr=False)


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
    phrase: Phrase, probability: NDArray[np.float32], attention: NDArray[np.float32], threshold: float = 0.5
) -> GroundedPhrase:
    """Make the result of one phrase from its probabilities and attention at the image's size.

    Args:
        phrase: The phrase.
        probability: `(H, W)` in [0, 1].
        attention: `(H, W)`, not negative, at any scale.
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
        map=attention / max(float(attention.max()), 1e-12),
    )
