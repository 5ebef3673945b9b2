"""Prompts for a backbone: chat messages with images, videos and text, and the phrases to ground in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from PIL import Image

from vlm_adapters.answer import Answer
from vlm_adapters.errors import PhraseError, PromptError
from vlm_adapters.images import ImageSource, load_image
from vlm_adapters.limits import shown
from vlm_adapters.message import Message, MessageLike, as_message
from vlm_adapters.video import Video

__all__ = ["DESCRIBE_QUESTION", "Message", "MessageLike", "Phrase", "PhraseLike", "Prompt"]

DESCRIBE_QUESTION = "Please give me a description of the image."
"""The question before a caption (F-LMM, arXiv 2406.05821: the same for every data set)."""


@dataclass(frozen=True)
class Phrase:
    """A span of text to ground.

    Attributes:
        text: The words, without white space around them.
        start: Index of the first character in the prompt's text.
        end: Index after the last character.

    Examples:
        >>> from vlm_adapters import Phrase
        >>> text = "a cat on a mat"
        >>> phrase = Phrase("a mat", 9, 14)
        >>> text[phrase.start : phrase.end]
        'a mat'
    """

    text: str
    start: int
    end: int

    @property
    def span(self) -> tuple[int, int]:
        """The indices `(start, end)`."""
        return self.start, self.end

    @classmethod
    def find(cls, text: str, phrase: str) -> Self:
        """Find the only occurrence of `phrase` in `text`.

        Raises:
            PhraseError: It is blank, missing, or occurs more than once.
        """
        if not (words := phrase.strip()):
            raise PhraseError(f"A phrase is blank: {shown(phrase)}. Name words of the text: {shown(text, 300)}.")
        start = text.find(words)
        if start < 0:
            other = re.search(re.escape(words), text, re.IGNORECASE)
            advice = f"It differs in case from {shown(other.group())}." if other else "Copy it letter by letter."
            raise PhraseError(f"The phrase {shown(words)} is not in the text {shown(text, 300)}. {advice}")
        if (again := text.find(words, start + 1)) >= 0:
            raise PhraseError(
                f"The phrase {shown(words)} occurs more than once in the text {shown(text, 300)} (at characters "
                f"{start} and {again}). Give a span (start, end) or a longer phrase."
            )
        return cls(words, start, start + len(words))

    @classmethod
    def at(cls, text: str, start: int, end: int) -> Self:
        """Take the characters `[start, end)` of `text`, without the white space around them.

        Raises:
            PhraseError: The span is outside the text, empty or blank.
        """
        if not 0 <= start < end <= len(text):
            raise PhraseError(
                f"The span ({start}, {end}) does not lie in the text of {len(text)} characters: {shown(text, 300)}. "
                "Give 0 <= start < end <= length."
            )
        words = text[start:end]
        if not (stripped := words.strip()):
            raise PhraseError(f"The span ({start}, {end}) holds only white space in the text {shown(text, 300)}.")
        start += len(words) - len(words.lstrip())
        return cls(stripped, start, start + len(stripped))


@dataclass(frozen=True)
class Prompt:
    """Chat messages, and the phrases to ground in the text of the last one.

    Attributes:
        messages: The turns of the chat; the phrases are in the last.
        phrases: The phrases to ground, as spans of `text`.
        answer: The last message as a model wrote it; `answered` sets it. Where it has token ids, the model reads
            exactly these after its question, and not what a chat template and a tokenizer make of the text.

    Examples:
        >>> from PIL import Image
        >>> from vlm_adapters import Prompt
        >>> prompt = Prompt.describe(Image.new("RGB", (64, 48)), "a cat on a mat", phrases=["a cat", (9, 14)])
        >>> prompt.phrases
        (Phrase(text='a cat', start=0, end=5), Phrase(text='a mat', start=9, end=14))
    """

    messages: tuple[Message, ...]
    phrases: tuple[Phrase, ...] = ()
    answer: Answer | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise PromptError("The prompt has no message. Give at least one, with an image.")
        if not self.media:
            raise PromptError("The prompt has no image. Put one in a message's content.")
        self._take_ids()
        if self.answer is not None:
            roles = [message.role for message in self.messages[-2:]]
            if roles != ["user", "assistant"] or self.messages[-1].content != (self.answer.text,):
                raise PromptError(
                    f"{shown(self.answer)} is not the last message, or does not follow a message of the user. "
                    "Build the prompt with Prompt.answered."
                )
        for phrase in self.phrases:
            if not isinstance(phrase, Phrase):
                raise PhraseError(
                    f"{shown(phrase)} is not a Phrase. Use Prompt.chat or Prompt.describe, which find it in the text."
                )
            matches = 0 <= phrase.start < phrase.end and self.text[phrase.start : phrase.end] == phrase.text
            if not matches or not phrase.text.strip():
                raise PhraseError(
                    f"{shown(phrase)} does not match the text {shown(self.text, 300)}. Use Phrase.find or Phrase.at."
                )

    def _take_ids(self) -> None:
        """Keep the ids of the last message's tokens in `answer` alone."""
        *earlier, last = self.messages
        if last.ids is None:
            return
        object.__setattr__(self, "messages", (*earlier, replace(last, ids=None)))
        if self.answer is None:
            object.__setattr__(self, "answer", Answer(last.text, last.ids))

    @property
    def text(self) -> str:
        """The text of the last message, which contains the phrases."""
        return self.messages[-1].text

    @property
    def question(self) -> Self:
        """The messages before the last one: the prompt that it answers."""
        return type(self)(self.messages[:-1])

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The images of all messages, in order, upright RGB."""
        return tuple(image for message in self.messages for image in message.images)

    @property
    def media(self) -> tuple[Image.Image | Video, ...]:
        """The images and videos of all messages, in order: what `ImageGrid.image` counts."""
        return tuple(part for message in self.messages for part in message.media)

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos of all messages, in order."""
        return tuple(part for part in self.media if isinstance(part, Video))

    @property
    def first_image(self) -> Image.Image:
        """The image in which the phrases are grounded.

        Raises:
            PromptError: A video comes first.
        """
        if isinstance(first := self.media[0], Video):
            raise PromptError(
                "The prompt begins with a video, and an image is needed. Ground the phrases of a video with "
                "GroundedVLM.ground_video."
            )
        return first

    @classmethod
    def chat(cls, messages: Sequence[MessageLike], phrases: Sequence[PhraseLike] = ()) -> Self:
        """Build a prompt from messages, finding the phrases in the text of the last one.

        Args:
            messages: `Message`, or dicts as chat templates of transformers take them; see `as_message`.
            phrases: Strings that occur once in the last text, or spans `(start, end)` of its characters.

        Raises:
            ImageError: An image cannot be used.
            PromptError: A message is in another form.
            PhraseError: A phrase is missing, ambiguous or blank, or a span lies outside the text.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise PromptError(f"A chat is a list of Message or of dicts with role and content, got {shown(messages)}.")
        turns = tuple(map(as_message, messages))
        if isinstance(phrases, str) or not isinstance(phrases, Sequence):
            raise PhraseError(f"Phrases are a list, got {shown(phrases)}. Write [{shown(phrases)}] for one phrase.")
        text = turns[-1].text if turns else ""
        return cls(turns, tuple(_phrase(text, phrase) for phrase in phrases))

    @classmethod
    def describe(cls, image: ImageSource | Video, text: str, phrases: Sequence[PhraseLike] = ()) -> Self:
        """Build a prompt for a caption: the standard question about `image`, with `text` as the answer.

        Args:
            image: An image in any form that `load_image` takes, or a video.
            text: The caption, which contains the phrases.
            phrases: Strings that occur once in `text`, or spans `(start, end)` of characters.

        Raises:
            ImageError: The image cannot be used.
            PromptError: The text is blank.
            PhraseError: A phrase is missing, ambiguous or blank, or a span lies outside the text.
        """
        if not isinstance(text, str):
            raise PromptError(f"The text is {shown(text)}, of type {type(text).__name__}. Give a string: the sentence.")
        if not text.strip():
            raise PromptError(
                f"The text is blank: {shown(text)}. Give the sentence that contains the phrases to ground."
            )
        shown_first = image if isinstance(image, Video) else load_image(image)
        question = Message("user", (shown_first, DESCRIBE_QUESTION))
        return cls.chat([question, Message("assistant", (text,))], phrases)

    def answered(self, answer: Answer | str, phrases: Sequence[PhraseLike] = ()) -> Self:
        """Build the prompt in which a model has answered this one, which ends with the user's turn.

        Args:
            answer: What `generate` gave, or what the model wrote elsewhere: by its tokens, or as a text alone.
            phrases: Strings that occur once in the answer, or spans `(start, end)` of its characters.

        Raises:
            PromptError: This prompt does not end with the user's turn.
            PhraseError: A phrase is missing, ambiguous or blank, or a span lies outside the text.
        """
        given = Answer(answer) if isinstance(answer, str) else answer
        answered = type(self).chat([*self.messages, Message("assistant", (given.text,))], phrases)
        return replace(answered, answer=given)

    def asked(self, question: Message | str) -> Self:
        """Build the prompt in which the user speaks again, after the answer at the end of this one.

        An answer whose token ids are known is still read by them, as far as the chat template lets it stand where it
        was written.

        Args:
            question: The user's next message, or its text.
        """
        message = question if isinstance(question, Message) else Message("user", (question,))
        *earlier, last = self.messages
        written = last if self.answer is None else replace(last, ids=self.answer.ids)
        return type(self).chat([*earlier, written, message])


PhraseLike = str | tuple[int, int] | Phrase
"""A phrase to find in a text: its words, its span of characters, or a `Phrase`."""


def _phrase(text: str, phrase: PhraseLike) -> Phrase:
    if isinstance(phrase, Phrase):
        return phrase
    if isinstance(phrase, str):
        return Phrase.find(text, phrase)
    if not (isinstance(phrase, Sequence) and len(phrase) == 2 and all(isinstance(index, int) for index in phrase)):
        raise PhraseError(
            f"A phrase is {shown(phrase)}. Give its words, or its span (start, end) in characters of the text."
        )
    return Phrase.at(text, *phrase)
