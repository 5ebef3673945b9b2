"""What every grounder can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.images import ImageSource
from vlm_adapters.prompt import PhraseLike, Prompt


class Grounder(ABC):
    """Anything that finds the phrases of a sentence in an image.

    Attributes:
        adapter: The backbone that it stands on.
    """

    adapter: BackboneAdapter

    @property
    @abstractmethod
    def description(self) -> str:
        """What finds the masks, for people: the method and what it rests on."""

    def fingerprint(self) -> dict[str, str]:
        """Digests of what the masks depend on beside the backbone, by name; none unless a grounder gives some."""
        return {}

    def ground(self, image: ImageSource, text: str, phrases: Sequence[PhraseLike]) -> Grounding:
        """Find the phrases of a sentence in an image.

        Args:
            image: Any form of image that `load_image` takes.
            text: The sentence.
            phrases: Strings that occur once in it, or spans `(start, end)` of its characters.

        Raises:
            ImageError: The image cannot be used.
            PromptError: The text or a phrase cannot be used.
            DecoderError: What reads the backbone's maps does not fit them.
        """
        return self.ground_all([Prompt.describe(image, text, phrases)])[0]

    @abstractmethod
    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        """Ground a batch of prompts, each in its first image."""

    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        """Find the masks of many prompts, by name: a grounder may have several, such as coarse and refined ones.

        Args:
            prompts: Any number, each with at least one phrase; each is grounded in its first image.
            batch_size: Prompts that are computed at once.

        Returns:
            For every prompt masks `(P, H, W)` at the image's size, under the same names for all; the last is the best.
        """
        groundings = [
            grounding
            for start in range(0, len(prompts), batch_size)
            for grounding in self.ground_all(prompts[start : start + batch_size])
        ]
        return [{"mask": np.stack([phrase.mask for phrase in grounding.phrases])} for grounding in groundings]
