"""What a command is to ground: a sentence, or the answer to a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from vlm_adapters.answer import Answer
from vlm_adapters.cli.arguments import phrases_of
from vlm_adapters.cli.printing import line
from vlm_adapters.errors import OptionError, PromptError
from vlm_adapters.images import load_image
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Message, Prompt

if TYPE_CHECKING:
    from pathlib import Path

    from vlm_adapters.backbone.protocol import BackboneAdapter
    from vlm_adapters.output.exports import ShownAnswer


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
            return cls(Prompt.describe(image, text, phrases_of(text, phrase, span)), phrase, span)
        if not ask.strip():
            raise PromptError("The question is blank. Give one: --ask QUESTION.")
        question = cls(Prompt.chat([Message("user", (load_image(image), ask))]), phrase, span)
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
