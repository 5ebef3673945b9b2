"""One sample of any data set: an image, a sentence, and its phrases with their masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Phrase, Prompt

ABSENT, NO_TARGET = "absent", "no target"
"""Tags of a phrase that names nothing in the image, of scenes and of gRefCOCO; its mask is empty."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A sample without its image and masks: cheap to have for all samples of a set.

    Attributes:
        id: The sample's id within its data set.
        image_id: The id of its image. Sets with images from one source have the same ids, such as those of COCO.
        text: The sentence.
        phrases: Spans of `text` that name things in the image.
        phrase_ids: For every phrase the id of its object in the source, such as RefCOCO's ref id; empty where the
            source has none.
        phrase_tags: For every phrase the words that metrics are grouped by, such as `("thing", "plural")`; empty where
            the set has none.
    """

    id: str
    image_id: str
    text: str
    phrases: tuple[Phrase, ...]
    phrase_ids: tuple[str, ...] = ()
    phrase_tags: tuple[tuple[str, ...], ...] = ()

    @property
    def has_absent_phrase(self) -> bool:
        """Whether a tag says that a phrase is not in the image."""
        return any(ABSENT in tags or NO_TARGET in tags for tags in self.phrase_tags)

    def __post_init__(self) -> None:
        for name in ("phrase_ids", "phrase_tags"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.phrases):
                raise DataError(
                    f"Sample {shown(self.id)}: {name} has {len(getattr(self, name))} entries for {len(self.phrases)} "
                    "phrases. Give one for each, or none at all."
                )


@dataclass(frozen=True, kw_only=True)
class Sample(Annotation):
    """An image with a sentence, and the true masks of its phrases.

    Attributes:
        image: Upright RGB image of `H x W` pixels.
        masks: `(P, H, W)` bool, one mask per phrase.
        ignored: `(H, W)` bool: pixels that an evaluation counts neither as found nor as missed; None where the set
            has none.
    """

    image: Image.Image = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    ignored: NDArray[np.bool_] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (len(self.phrases), self.image.height, self.image.width)
        if self.masks.shape != expected or self.masks.dtype != np.bool_:
            raise DataError(
                f"Sample {shown(self.id)}: masks are {self.masks.dtype} {self.masks.shape}. "
                f"Give bool {expected} (P, H, W)."
            )
        if self.ignored is not None and (self.ignored.shape != expected[1:] or self.ignored.dtype != np.bool_):
            raise DataError(
                f"Sample {shown(self.id)}: ignored is {self.ignored.dtype} {self.ignored.shape}. "
                f"Give bool {expected[1:]} (H, W), or None."
            )

    @property
    def prompt(self) -> Prompt:
        """The sample as a prompt: the standard question, with its sentence as the answer."""
        return Prompt.describe(self.image, self.text, self.phrases)
