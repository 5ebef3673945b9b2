"""Answers that a model wrote elsewhere, in JSON."""

from __future__ import annotations

import os

from pydantic import BaseModel, StrictInt

from vlm_adapters.answer import Answer
from vlm_adapters.data.validated import read_model
from vlm_adapters.errors import PromptError


class _AnswerFile(BaseModel):
    """What is read of the file; other keys do not matter."""

    text: str
    ids: list[StrictInt] | None = None


def read_answer(path: str | os.PathLike[str]) -> Answer:
    """Read an answer: an object with its `text` and, where they are known, the `ids` of its tokens.

    Raises:
        PromptError: The file cannot be read, or holds something else.
    """
    remedy = 'Write {"text": "...", "ids": [...]}; the ids may be left out.'
    found = read_model(path, _AnswerFile, what="JSON file of an answer", error=PromptError, remedy=remedy)
    return Answer(found.text, found.ids)
