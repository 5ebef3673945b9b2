"""Prompts as people hold them: pairs, triples, chats of transformers, one of them or any iterable of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_adapters.errors import PromptError
from vlm_adapters.images import ImageSource
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Message, MessageLike, PhraseLike, Prompt
from vlm_adapters.video import Video

PromptLike = (
    Prompt
    | tuple[ImageSource | Video, str]
    | tuple[ImageSource | Video, str, Sequence[PhraseLike] | None]
    | Sequence[MessageLike]
)
"""A prompt, `(image, text)`, `(image, text, phrases)` or a chat; without phrases, the whole text is one phrase."""

PromptsLike = PromptLike | Iterable[PromptLike]
"""One prompt, or any iterable of them."""

_FORMS = "a Prompt, (image, text), (image, text, phrases) or a chat, which is a list of messages"


def as_prompts(source: PromptsLike) -> list[Prompt]:
    """Convert what someone holds to prompts.

    Args:
        source: One prompt in a form of `PromptLike`, or any iterable of them, such as a generator.

    Raises:
        PromptError: There is none, or one is in another form.
        ImageError: An image cannot be used.
        PhraseError: A phrase is not in its text.
    """
    prompts = list(iterate_prompts(source))
    if not prompts:
        raise PromptError(f"There is no prompt in this {type(source).__name__}. Give at least one: {_FORMS}.")
    return prompts


def iterate_prompts(source: PromptsLike) -> Iterator[Prompt]:
    """Convert what someone holds to prompts, each when it is needed; see `as_prompts`."""
    if _is_one(source) or isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        yield as_prompt(source)
        return
    for item in source:
        yield as_prompt(item)


def as_prompt(item: object) -> Prompt:
    """Convert one item of a form of `PromptLike` to a prompt; see `as_prompts`."""
    if isinstance(item, Prompt):
        return item
    if not _is_one(item):
        raise PromptError(f"A prompt is given as {shown(item)}, of type {type(item).__name__}. Give {_FORMS}.")
    if isinstance(item, tuple):
        image, text, *phrases = item
        return as_described(image, text, phrases[0] if phrases else None)
    messages: Any = item
    chat = Prompt.chat(messages)
    return Prompt.chat(chat.messages, whole(chat.text))


def as_described(image: ImageSource | Video, text: str, phrases: Sequence[PhraseLike] | None) -> Prompt:
    """Build a prompt as `Prompt.describe` does; None for the phrases makes one of the whole text."""
    return Prompt.describe(image, text, whole(text) if phrases is None else phrases)


def whole(text: object) -> list[tuple[int, int]]:
    """The span of all of a text, as the only phrase; none of a blank one."""
    return [(0, len(text))] if isinstance(text, str) and text.strip() else []


def _is_one(source: object) -> bool:
    """Whether this is one prompt, in any form: the text of a pair tells it from a pair of prompts."""
    if isinstance(source, tuple) and len(source) in (2, 3) and isinstance(source[1], str):
        return True
    is_chat = isinstance(source, Sequence) and source and all(isinstance(item, Message | Mapping) for item in source)
    return isinstance(source, Prompt) or bool(is_chat)
