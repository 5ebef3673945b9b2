"""What every grounder can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

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
    def told(self) -> str:
        """What finds the masks, for people: the method and what it rests on."""

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
