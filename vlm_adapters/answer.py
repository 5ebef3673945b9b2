"""What a model wrote: its words and its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index
from typing import SupportsIndex

from vlm_adapters.errors import PromptError
from vlm_adapters.limits import shown


@dataclass(frozen=True)
class Answer:
    """What a model wrote: its words, and the tokens that it wrote them with.

    The tokens of a text are not always those that a tokenizer makes of it, so rows of the text can be rows of another
    sequence than the one that was generated. `Prompt.answered` takes the tokens where they are known.

    Attributes:
        text: The words, without control tokens.
        ids: Ids of the tokens, control tokens such as the end of the turn included; None where they are not known.

    Examples:
        >>> from vlm_adapters import Answer
        >>> Answer("a red circle", [71, 343, 271, 2]).ids
        (71, 343, 271, 2)
    """

    text: str
    ids: Sequence[int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise PromptError(f"The text of an answer is {shown(self.text)}. Give a string.")
        if self.ids is not None:
            object.__setattr__(self, "ids", _plain(self.ids))


def _plain(ids: Sequence[int]) -> tuple[int, ...]:
    """Ids as plain ints, from integers of any library."""
    try:
        plain = tuple(_whole(id_) for id_ in ids)
    except TypeError as error:
        raise PromptError(f"The token ids of an answer are {shown(ids)}. Give a list of whole numbers.") from error
    if any(id_ < 0 for id_ in plain):
        raise PromptError(f"The token ids of an answer hold {min(plain)}. Give ids of the model's vocabulary.")
    return plain


def _whole(value: SupportsIndex) -> int:
    if isinstance(value, bool):
        raise TypeError
    return index(value)
