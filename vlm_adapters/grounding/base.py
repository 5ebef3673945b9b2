"""The base class of everything that grounds phrases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.backbone.divergence import answer_divergence
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.conversion import PromptLike, PromptsLike, as_described, as_prompt, iterate_prompts
from vlm_adapters.embedded.unlike_scenes import warnings_about
from vlm_adapters.grounding.result import GroundedPhrase, Grounding, Method
from vlm_adapters.images import ImageSource
from vlm_adapters.prompt import PhraseLike, Prompt


class Grounder(ABC):
    """Anything that finds the phrases of a sentence in an image.

    Attributes:
        adapter: The backbone.
        keeps_absent_masks: Whether phrases that count as absent keep the masks that they would have; set it to True to
            see them.

    Examples:
        >>> from vlm_adapters import Grounder, load_grounder
        >>> isinstance(load_grounder("tiny-llava", method="heads"), Grounder)
        True
    """

    adapter: BackboneAdapter
    keeps_absent_masks: bool = False

    @property
    @abstractmethod
    def description(self) -> str:
        """What finds the masks, in words: the method and what it is based on."""

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.adapter!r}: {self.description})"

    def fingerprint(self) -> dict[str, str]:
        """Digests of whatever the masks depend on beside the backbone, by name; a subclass gives its own."""
        return {}

    def warnings_about(self, image: Image.Image) -> tuple[str, ...]:
        """What the result of grounding in an image says of it: that an embedded model does not know such images."""
        return warnings_about(self.adapter.info.checkpoint, [image])

    def result(
        self, prompt: Prompt, image: Image.Image, phrases: Sequence[GroundedPhrase], method: Method
    ) -> Grounding:
        """The result of grounding a prompt's phrases in one of its images.

        Of an answer whose tokens are not known it measures the divergence, which takes a pass of the model.
        """
        divergence, said = answer_divergence(self.adapter, prompt), self.warnings_about(image)
        return Grounding(image, prompt.text, tuple(phrases), method, said, prompt.answer, divergence)

    def ground(self, image: ImageSource, text: str, phrases: Sequence[PhraseLike] | None = None) -> Grounding:
        """Find the phrases of a sentence in an image.

        Args:
            image: An image in any form that `load_image` takes.
            text: The sentence.
            phrases: Strings that occur once in it, or spans `(start, end)` of its characters. None makes one phrase of
                the whole text; `vlm_adapters.grounding.noun_phrases(text)` finds those of an English sentence.

        Raises:
            ImageError: The image cannot be used.
            PromptError: The text or a phrase cannot be used.
            DecoderError: The decoder does not fit the maps of the backbone.
        """
        return self.ground_all([as_described(image, text, phrases)])[0]

    @abstractmethod
    def ground_all(self, prompts: PromptsLike) -> list[Grounding]:
        """Ground prompts at once, each in its first image.

        Args:
            prompts: Any iterable of prompts, of `(image, text)` or `(image, text, phrases)`, or of chats; or one.
        """

    def ground_each(self, prompts: PromptsLike, *, batch_size: int = 8) -> Iterator[Grounding]:
        """Ground any number of prompts, each in its first image, and yield every grounding as soon as it is there.

        Prompts are taken one batch at a time, so that a generator may open images when they are needed. A bar shows
        the progress: `for grounding in tqdm(grounder.ground_each(prompts), total=len(prompts))`.

        Args:
            prompts: As `ground_all` takes them.
            batch_size: Prompts that are computed at once.
        """
        given = iterate_prompts(prompts)
        while batch := list(islice(given, batch_size)):
            yield from self.ground_all(batch)

    def ground_images(self, prompt: PromptLike) -> list[Grounding]:
        """Ground the phrases of one prompt in each of its images, in their order.

        A decoder and heads read the prompt once, with all its images. What asks in the model's own words asks about
        every image by itself.
        """
        prompt = as_prompt(prompt)
        if len(prompt.media) == 1:
            return self.ground_all([prompt])
        alone = [Prompt.describe(image, prompt.text, prompt.phrases) for image in prompt.images]
        return [replace(self.ground_all([of_image])[0], answer=prompt.answer) for of_image in alone]

    def masks(self, prompts: Sequence[Prompt], *, batch_size: int = 8) -> list[dict[str, NDArray[np.bool_]]]:
        """Find the masks of many prompts, by name; a grounder may give several, such as coarse and refined masks.

        Args:
            prompts: Any number, each with at least one phrase; each is grounded in its first image.
            batch_size: Prompts that are computed at once.

        Returns:
            For every prompt masks `(P, H, W)` at the image's size, under the same names for all; the last is the best.
        """
        return [
            {"mask": np.stack([phrase.mask for phrase in grounding.phrases])}
            for start in range(0, len(prompts), batch_size)
            for grounding in self.ground_all(prompts[start : start + batch_size])
        ]

    def masks_of_batches(
        self, batches: Iterable[Sequence[Prompt]], *, batch_size: int = 8
    ) -> Iterator[list[dict[str, NDArray[np.bool_]]]]:
        """Find the masks of one batch after the other, each as `masks` finds them.

        A grounder may take batches before they are needed, to prepare them while the model works.
        """
        for batch in batches:
            yield self.masks(batch, batch_size=batch_size)
