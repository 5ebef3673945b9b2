"""Checking what a file holds against a pydantic model, with the first mistake as a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from vlm_adapters.errors import AdapterError

Model = TypeVar("Model", bound=BaseModel)


class Mistake(NamedTuple):
    """A mistake that pydantic found.

    Attributes:
        key: Where it is, such as `decoder.depth`; empty if it concerns several keys or the JSON itself.
        message: What is wrong.
        kind: Pydantic's name for it, such as `missing` or `extra_forbidden`.
        value: What was found.
    """

    key: str
    message: str
    kind: str
    value: object

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


def first_mistake(error: ValidationError) -> Mistake:
    """Choose the mistake to report: the first, but an unknown key before a missing one, which may be its correction."""
    mistakes = error.errors()
    unknown = [mistake for mistake in mistakes if mistake["type"] == "extra_forbidden"]
    first = unknown[0] if unknown and mistakes[0]["type"] == "missing" else mistakes[0]
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return Mistake(".".join(map(str, first["loc"])), message, first["type"], first["input"])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the most similar of the known words, with a space before it; empty if none is similar."""
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def read_model(
    path: str | os.PathLike[str], model: type[Model], *, what: str, error: type[AdapterError], remedy: str
) -> Model:
    """Read a JSON file into a model.

    Args:
        path: The file.
        model: The model.
        what: What the file should be, such as `"head profile"`.
        error: The type of the error to raise.
        remedy: The sentence at the end of its message that says what to do.

    Raises:
        AdapterError: The file cannot be read, or does not fit the model; the type is `error`.
    """
    try:
        return model.model_validate_json(Path(path).read_bytes())
    except OSError as cause:
        raise error(f"No {what} can be read from {os.fspath(path)}: {cause.strerror or cause}. {remedy}") from cause
    except ValidationError as cause:
        raise error(f"{os.fspath(path)} is not a {what}: {first_mistake(cause)}. {remedy}") from cause
