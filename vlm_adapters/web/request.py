"""What a visitor sends: an image, and a sentence to ground in it or a question about it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vlm_adapters.errors import ImageError, PromptError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.chat import GroundedChat, PhraseFinder
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.images import load_image
from vlm_adapters.limits import DEFAULT_LIMITS, shown
from vlm_adapters.prompt import PhraseLike, Prompt
from vlm_adapters.web.limits import WebLimits


class PageRequest(BaseModel):
    """The body of a request, in JSON.

    Attributes:
        image: An image file in base64: never a path or an address.
        text: The sentence, or the question.
        phrases: Phrases of the sentence, or of the answer; without any they are found by rule.
        ask: Whether the text is a question.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image: str
    text: str
    phrases: tuple[str, ...] = ()
    ask: bool = False

    @classmethod
    def read(cls, body: bytes, limits: WebLimits) -> Self:
        """Read a body.

        Raises:
            PromptError: It is of another form, or beyond the limits.
        """
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            (first, *_) = error.errors(include_input=False, include_url=False)
            place = ".".join(map(str, first["loc"])) or "body"
            raise PromptError(f"The request cannot be read: {shown(place)}: {first['msg']}.") from error
        if len(request.text) > limits.max_text:
            raise PromptError(
                f"The text has {len(request.text)} characters, and {limits.max_text} are allowed. Shorten it."
            )
        request.check_phrases(len(request.phrases), limits)
        return request

    @staticmethod
    def check_phrases(count: int, limits: WebLimits) -> None:
        """Check the number of phrases.

        Raises:
            PromptError: There are too many.
        """
        if count > limits.max_phrases:
            raise PromptError(f"There are {count} phrases, and {limits.max_phrases} are allowed. Name fewer.")

    def ground(self, grounder: Grounder, limits: WebLimits) -> tuple[Prompt, Grounding]:
        """Ground the sentence, or what the model answers.

        Returns:
            The prompt with its phrases, and where they are.

        Raises:
            ImageError: The image cannot be used, or is beyond the limits.
            PromptError: The text is blank, or a phrase is not in it.
            OptionError: The model does not answer.
        """
        try:
            data = base64.b64decode(self.image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError("The image is not in base64. Send the bytes of an image file in it.") from error
        image = load_image(data, replace(DEFAULT_LIMITS, max_pixels=limits.max_pixels))
        chat = GroundedChat(grounder, max_new_tokens=limits.max_new_tokens)

        def phrases(text: str) -> list[PhraseLike]:
            return self._phrases(text, chat.phrases, limits)

        if self.ask:
            turn = chat.ask(self.text, [image], phrases=phrases)
            return turn.prompt, turn.groundings[0]
        prompt = Prompt.describe(image, self.text, phrases(self.text) if self.text.strip() else ())
        return prompt, grounder.ground_all([prompt])[0]

    def _phrases(self, text: str, find: PhraseFinder, limits: WebLimits) -> list[PhraseLike]:
        """The phrases that were named, else those that are found, else all of the text."""
        if not text.strip():
            raise PromptError("The answer is blank, so that nothing can be grounded. Ask another question.")
        found = list(self.phrases or find(text) or [(0, len(text))])
        self.check_phrases(len(found), limits)
        return found
