"""A phrase as a person writes it: by its words, or by its span of characters."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from vlm_adapters.prompt import Phrase


class PhraseEntry(BaseModel):
    """A phrase of a sentence.

    Attributes:
        text: Its words, which occur once in the sentence.
        span: Its characters `[start, end)` of the sentence, instead of `text`.
        tags: Words that metrics are grouped by.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    span: tuple[int, int] | None = None
    tags: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _given_once(self) -> Self:
        if (self.text is None) == (self.span is None):
            raise ValueError("give text or span")
        return self

    def within(self, sentence: str) -> Phrase:
        """Find the phrase in its sentence.

        Raises:
            PhraseError: It is blank, not in the sentence, or occurs more than once.
        """
        return Phrase.find(sentence, self.text or "") if self.span is None else Phrase.at(sentence, *self.span)
