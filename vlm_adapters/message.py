"""Messages of a chat: texts, images and videos, and the role of whoever gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from vlm_adapters.answer import Answer
from vlm_adapters.errors import PromptError
from vlm_adapters.images import load_image
from vlm_adapters.limits import shown
from vlm_adapters.video import Video

ROLES = ("system", "user", "assistant")

_IMAGE_KEYS = ("image", "path", "url")
_TEXT_FORM = '{"type": "text", "text": "..."}'
_IMAGE_FORM = '{"type": "image", "image": an image or its path}'

Part = Image.Image | Video | str
"""What a message holds."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: `"system"`, `"user"` or `"assistant"`.
        content: Images, videos and texts in their order. Images go through `load_image`, which makes them upright and
            RGB.
        ids: Ids of the tokens of an assistant's only text, where they are known; the model reads the text by them. In a
            prompt, those of the last message are in `Prompt.answer`.

    Examples:
        >>> from PIL import Image
        >>> from vlm_adapters import Message
        >>> message = Message("user", (Image.new("RGB", (8, 8)), "What is this?"))
        >>> message.role, message.text
        ('user', 'What is this?')
    """

    role: str
    content: tuple[Part, ...]
    ids: Sequence[int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PromptError(f"Unknown role {shown(self.role)}. Use one of {', '.join(ROLES)}.")
        if not isinstance(self.content, Sequence) or isinstance(self.content, str):
            raise PromptError(f"The content of a message is {shown(self.content)}. Give a tuple: (text,).")
        if not self.content:
            raise PromptError(f"The message of the {self.role} is empty. Give it a text or an image.")
        for part in self.content:
            if not isinstance(part, Part):
                raise PromptError(
                    f"A message holds a {type(part).__name__}. Give strings, images (open others with load_image) and "
                    "videos."
                )
        opened = tuple(load_image(part) if isinstance(part, Image.Image) else part for part in self.content)
        object.__setattr__(self, "content", opened)
        if self.ids is None:
            return
        if self.role != "assistant" or not (len(opened) == 1 and isinstance(opened[0], str)):
            raise PromptError(
                f"Only one text of the assistant has token ids, and a message of the {self.role} has some."
            )
        object.__setattr__(self, "ids", Answer(self.text, self.ids).ids)

    @property
    def text(self) -> str:
        """The texts of the message, joined without a separator."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The images of the message, in order."""
        return tuple(part for part in self.content if isinstance(part, Image.Image))

    @property
    def media(self) -> tuple[Image.Image | Video, ...]:
        """The images and videos of the message, in order."""
        return tuple(part for part in self.content if not isinstance(part, str))


MessageLike = Message | Mapping[str, object]
"""A message, or a dict as chat templates of transformers take it: `{"role": ..., "content": ...}`."""


def as_message(message: MessageLike) -> Message:
    """Convert `{"role": ..., "content": ...}` to a message; a message is given back.

    Args:
        message: The content of a dict is a text, or a list of `{"type": "text", "text": ...}`,
            `{"type": "image", "image": ...}` with an image in any form that `load_image` takes (the key may be `path`
            or `url`, too; what is a URL is refused), and `{"type": "video", "video": Video(...)}`.

    Raises:
        PromptError: A key is missing or unknown, or a part is in another form.
        ImageError: An image cannot be used.
    """
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping):
        raise PromptError(f"A chat is a list of Message or of dicts with role and content, and holds {shown(message)}.")
    role, content = message.get("role"), message.get("content")
    if set(message) != {"role", "content"} or not isinstance(role, str):
        raise PromptError(
            f"A message of a chat has the keys {shown(list(message))}. Give {{'role': ..., 'content': ...}}, no more."
        )
    if isinstance(content, str):
        return Message(role, (content,))
    if not isinstance(content, Sequence):
        raise PromptError(
            f"The content of a message is {shown(content)}. Give a text, or a list of parts: {_TEXT_FORM}."
        )
    return Message(role, tuple(map(_part, content)))


def _part(part: object) -> Part:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise PromptError(f"A part of a message is {shown(part)}. Give {_TEXT_FORM} or {_IMAGE_FORM}.")
    kind, keys = part.get("type"), set(part) - {"type"}
    if kind == "text" and keys == {"text"} and isinstance(part["text"], str):
        return part["text"]
    if kind == "image" and len(keys) == 1 and (key := keys.pop()) in _IMAGE_KEYS:
        return load_image(part[key])
    if kind == "video" and keys == {"video"} and isinstance(part["video"], Video):
        return part["video"]
    if kind == "image" and not keys:
        raise PromptError(f"An image of a chat is missing: {shown(part)} holds none. Give {_IMAGE_FORM}.")
    raise PromptError(
        f"A part of a message has type {shown(kind)} and keys {shown(sorted(map(str, keys)))}. Give {_TEXT_FORM}, "
        f'{_IMAGE_FORM}, or {{"type": "video", "video": Video(...)}}.'
    )
