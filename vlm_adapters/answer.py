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

    Example:
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


@dataclass(frozen=True)
class Divergence:
    """How far a text is from what a model says itself: where another token would have been likelier.

    A text that the same model wrote, each token the likeliest, differs nowhere if its tokens are those that were
    generated. Sampled text and text by others differ where they are less likely.

    Attributes:
        tokens: Number of tokens of the text.
        differing: Number of tokens than which the model finds another one likelier.
        first: Characters `(start, end)` of the text that the first of these tokens spells; None if there is none.
        largest_gap: The largest difference of log probability between the likeliest token and that of the text.
    """

    tokens: int
    differing: int
    first: tuple[int, int] | None
    largest_gap: float


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
