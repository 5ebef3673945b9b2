"""What a command is to ground: a sentence, or the answer to a question."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vlm_adapters.answer import Answer
from vlm_adapters.cli.arguments import phrases_of
from vlm_adapters.cli.printing import line
from vlm_adapters.errors import ImageError, OptionError, PromptError
from vlm_adapters.images import load_image
from vlm_adapters.limits import DEFAULT_LIMITS, shown
from vlm_adapters.prompt import Message, Prompt

if TYPE_CHECKING:
    from PIL import Image

    from vlm_adapters.backbone.protocol import BackboneAdapter
    from vlm_adapters.output.exports import ShownAnswer


STDIN = "-"
"""Stands for an image that is read from stdin."""


def read_image(name: str) -> Image.Image:
    """Open an image that a user named: a file, or what is piped in.

    Raises:
        ImageError: It cannot be used, or nothing is piped in.
    """
    if name != STDIN:
        return load_image(name)
    if sys.stdin.isatty():
        raise ImageError("There is no image on stdin. Pipe one in: cat image.png | adapters ground - TEXT.")
    content = sys.stdin.buffer.read(DEFAULT_LIMITS.max_file_bytes + 1)
    if len(content) > DEFAULT_LIMITS.max_file_bytes:
        raise ImageError(f"The image on stdin has more than {DEFAULT_LIMITS.max_file_bytes:,} bytes. Give its file.")
    return load_image(content)


def image_id(name: str) -> str:
    """What results call an image: the name of its file without suffix."""
    return "stdin" if name == STDIN else Path(name).stem


def check_order(image: str, text: str | None) -> None:
    """Check that a sentence is not where the image should be.

    Raises:
        OptionError: The text is a file, and the image is none.
    """
    if text and image != STDIN and os.path.isfile(text) and not os.path.exists(image):  # noqa: PTH110, PTH113 - any name
        raise OptionError(
            f"There is no image {shown(image)}, and TEXT is the file {shown(text)}. Give the image first."
        )


@dataclass(frozen=True)
class Asked:
    """A prompt, or the question from which the model makes one.

    Attributes:
        prompt: The prompt; one that ends with the user's turn is for the model to answer.
        words: The phrases that a user named by their words.
        spans: The phrases that a user named by their characters.
    """

    prompt: Prompt
    words: Sequence[str] | None
    spans: Sequence[str] | None

    @classmethod
    def of(
        cls,
        image: str,
        text: str | None,
        *,
        ask: str | None,
        answer: Path | None,
        phrase: Sequence[str] | None,
        span: Sequence[str] | None,
    ) -> Self:
        """Read what a user asked for, before a model is loaded: mistakes show at once.

        Raises:
            OptionError: The options do not fit each other.
            PromptError: The text, the answer or a phrase cannot be used.
        """
        if answer is not None and (ask is None or text is not None):
            raise OptionError("--answer FILE answers --ask QUESTION in the place of TEXT. Give --ask, and no TEXT.")
        if ask is None:
            if text is None:
                raise OptionError("There is nothing to ground. Give TEXT, or a question: --ask QUESTION.")
            check_order(image, text)
            return cls(Prompt.describe(read_image(image), text, phrases_of(text, phrase, span)), phrase, span)
        if not ask.strip():
            raise PromptError("The question is blank. Give one: --ask QUESTION.")
        question = cls(Prompt.chat([Message("user", (read_image(image), ask))]), phrase, span)
        if answer is not None:
            from vlm_adapters.data.answers import read_answer  # noqa: PLC0415 - only where there is one

            return cls(question.answered(read_answer(answer)), phrase, span)
        return question if text is None else cls(question.answered(Answer(text)), phrase, span)

    def answered(self, answer: Answer) -> Prompt:
        """The prompt with an answer, and in it the phrases that the user named, or all of it.

        Raises:
            PromptError: The answer is blank.
        """
        if not answer.text.strip():
            raise PromptError("The answer is blank, so that nothing can be grounded. Ask another question.")
        return self.prompt.answered(answer, phrases_of(answer.text, self.words, self.spans))

    def prompt_for(self, adapter: BackboneAdapter) -> Prompt:
        """The prompt to ground, which the model answers if nobody has.

        Raises:
            OptionError: The model cannot answer.
            PromptError: Its answer is blank, or does not hold a phrase.
        """
        from vlm_adapters.backbone.protocol import SupportsGeneration  # noqa: PLC0415 - torch

        if self.prompt.messages[-1].role != "user":
            return self.prompt
        if not isinstance(adapter, SupportsGeneration):
            raise OptionError(f"The adapter {adapter.name} does not answer. Give TEXT, the answer to the question.")
        return self.answered(adapter.generate(self.prompt))


def print_answer(answer: ShownAnswer | None) -> None:
    """Print an answer, and how far it is from what the model says itself, where that was measured."""
    if answer is None:
        return
    line(f"answer: {shown(answer['text'], 1000)}")
    if (divergence := answer["divergence"]) is None:
        return
    if divergence["first"] is None:
        line(f"divergence: none; the model finds each of {divergence['tokens']} tokens likeliest")
        return
    word = answer["text"][slice(*divergence["first"])]
    line(
        f"divergence: the model finds others likelier than {divergence['differing']} of {divergence['tokens']} tokens, "
        f"first in {shown(word)}; largest gap of log probability {divergence['largest_gap']:.2f}"
    )
