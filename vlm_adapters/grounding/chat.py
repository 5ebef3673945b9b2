"""A conversation about images whose answers are grounded, each by the tokens that the model wrote it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from typing_extensions import Unpack

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.protocol import GenerationOptions, SupportsGeneration
from vlm_adapters.data.formats.scenes import shape_names
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import OptionError, PromptError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.closer import MARGIN, crop_from
from vlm_adapters.grounding.noun_phrases import noun_phrases
from vlm_adapters.grounding.result import Grounding
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.hf.streaming import TextCallback
from vlm_adapters.images import ImageSource, load_image
from vlm_adapters.prompt import Message, PhraseLike, Prompt

PhraseFinder = Callable[[str], Sequence[PhraseLike]]
"""Finds the phrases of an answer that are to be grounded: their words, where these occur once, or their spans."""


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and where the phrases of the answer are.

    Attributes:
        prompt: All that the model has read and written up to the end of the answer, and the answer's phrases.
        groundings: One for every image shown so far, in order; empty where the answer has no phrase.
    """

    prompt: Prompt
    groundings: tuple[Grounding, ...]

    @property
    def question(self) -> str:
        """What the user asked."""
        return self.prompt.messages[-2].text

    @property
    def answer(self) -> Answer:
        """What the model answered."""
        return self.prompt.answer or Answer(self.prompt.text)


class GroundedChat:
    """A conversation with a frozen model, in which the phrases of every answer are grounded.

    An answer is grounded in one pass over exactly the tokens that the model read and wrote, in every image that was
    shown so far. Nothing in the answer says which image a phrase is about: where there are several, a phrase that is in
    one of them has a mask in the others too, unless the grounder counts it as absent there.

    Attributes:
        grounder: The model that answers, and what finds the masks.
        phrases: Finds the phrases of an answer.
        max_new_tokens: Where an answer is cut off.
        turns: The turns so far.

    Examples:
        >>> from vlm_adapters import GroundedChat, load_grounder, open_dataset
        >>> chat = GroundedChat(load_grounder("tiny-qwen2_5_vl"))
        >>> scene = open_dataset("scenes:count=1,seed=5")[0]
        >>> turn = chat.ask("Please give me a description of the image.", [scene.image])
        >>> [found.phrase.text for found in turn.groundings[0].phrases if found.box] == [
        ...     phrase.text for phrase in turn.prompt.phrases
        ... ]
        True
    """

    def __init__(
        self,
        grounder: Grounder,
        *,
        phrases: PhraseFinder | None = None,
        system: str | None = None,
        max_new_tokens: int = 256,
    ) -> None:
        """Begin a conversation.

        Args:
            grounder: What `load_grounder` gives.
            phrases: Finds the phrases of an answer. None is `noun_phrases`, which reads English; for an embedded model
                `shape_names`, which knows what a phrase is in the captions of scenes: "a red star with a white dot".
            system: The system message, where the model's chat template takes one.
            max_new_tokens: Where an answer is cut off.
        """
        self.grounder = grounder
        of_scenes = alias_of(grounder.adapter.info.checkpoint) is not None
        self.phrases: PhraseFinder = phrases or (shape_names if of_scenes else noun_phrases)
        self.max_new_tokens = max_new_tokens
        self.turns: tuple[Turn, ...] = ()
        self._system = () if system is None else (Message("system", (system,)),)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages so far."""
        return self.turns[-1].prompt.messages if self.turns else self._system

    def ask(
        self,
        question: str,
        images: ImageSource | Sequence[ImageSource] = (),
        *,
        answer: Answer | str | None = None,
        phrases: Sequence[PhraseLike] | PhraseFinder | None = None,
        stream: Callable[[str], object] | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Turn:
        """Ask, and ground what the model answers. After an error the conversation is what it was before.

        Args:
            question: The user's words.
            images: An image that is shown with it, in any form that `load_image` takes, or a list or tuple of them.
            answer: The answer, where another engine has given it; None lets the model answer.
            phrases: The phrases of this answer, or what finds them; None takes what the conversation was begun with.
            stream: Gets the text of the answer piece by piece while it is written; all at once where the model of the
                adapter is not one of transformers, or there are beams.
            options: How the tokens of the answer are chosen.

        Raises:
            ImageError: An image cannot be used.
            PromptError: The question is blank, no image was shown yet, or the conversation is too long for the model.
            PhraseError: A phrase is not in the answer.
            OptionError: The model cannot answer, or an option cannot be used.
        """
        if not question.strip():
            raise PromptError("The question is blank. Ask something.")
        sources = images if isinstance(images, list | tuple) else [images]
        message = Message("user", (*map(load_image, sources), question))
        asked = self.turns[-1].prompt.asked(message) if self.turns else Prompt.chat([*self._system, message])
        if answer is None:
            answer = self._generate(asked, stream, options)
        text = answer if isinstance(answer, str) else answer.text
        found = self.phrases if phrases is None else phrases
        prompt = asked.answered(answer, found(text) if callable(found) else found)
        turn = Turn(prompt, tuple(self.grounder.ground_images(prompt)) if prompt.phrases else ())
        self.turns = (*self.turns, turn)
        return turn

    def look_again(
        self,
        phrase: PhraseLike | None = None,
        *,
        image: int = -1,
        margin: float = MARGIN,
        **options: Unpack[GenerationOptions],
    ) -> Turn:
        """Ask the last question again, and show a crop of an image with it: what is small there fills more tokens.

        The crop is a further image of the conversation, beside the whole one. To ask about the crop alone, begin
        another conversation with the image of `crop_from`.

        Args:
            phrase: Words or a span of the question, which are grounded in the image: the crop is around what they name.
                None takes what was grounded of the answer.
            image: Index of the image among those shown so far; -1 is the last.
            margin: What the crop shows around what was found; see `crop_from`.
            options: How the tokens of the answer are chosen.

        Raises:
            PromptError: Nothing was asked yet, or there is no such image.
            PhraseError: The phrase is not in the question.
            NothingFoundError: Nothing was found of the phrase, or of the answer.
        """
        if not self.turns:
            raise PromptError("Nothing was asked yet. Ask first, with an image.")
        last = self.turns[-1]
        images = last.prompt.images
        if not -len(images) <= image < len(images):
            raise PromptError(f"There is no image {image}: the conversation has {len(images)}, counted from 0.")
        if phrase is not None:
            found = self.grounder.ground(images[image], last.question, [phrase])
        else:
            found = last.groundings[image] if last.groundings else Grounding(images[image], last.answer.text, ())
        return self.ask(last.question, [crop_from(found, margin).image], **options)

    def _generate(self, prompt: Prompt, stream: Callable[[str], object] | None, options: GenerationOptions) -> Answer:
        adapter = self.grounder.adapter
        if not isinstance(adapter, SupportsGeneration):
            raise OptionError(f"The adapter {adapter.name} does not answer. Give the answer of another engine.")
        if stream is None:
            return adapter.generate(prompt, self.max_new_tokens, **options)
        if isinstance(adapter, TransformersBackbone) and options.get("num_beams", 1) == 1:
            options["streamer"] = TextCallback(adapter.processor.tokenizer, stream)
            return adapter.generate(prompt, self.max_new_tokens, **options)
        answer = adapter.generate(prompt, self.max_new_tokens, **options)
        stream(answer.text)
        return answer
