"""Checking what a file holds against a pydantic model, with the first mistake as a sentence."""

from __future__ import annotations

import os
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from vlm_adapters.errors import AdapterError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.reading import read_at_most

_LONGEST_WORD = 100

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
    key = ".".join(_part(part) for part in first["loc"])
    return Mistake(key, message, first["type"], first["input"])


def _part(part: str | int) -> str:
    is_plain = isinstance(part, str) and part.isprintable() and len(part) <= _LONGEST_WORD
    return part if isinstance(part, str) and is_plain else shown(part)


def read_model(
    path: str | os.PathLike[str],
    model: type[Model],
    *,
    what: str,
    error: type[AdapterError],
    remedy: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Model:
    """Read a JSON file into a model.

    Args:
        path: The file.
        model: The model.
        what: What the file should be, such as `"head profile"`.
        error: The type of the error to raise.
        remedy: The sentence at the end of its message that says what to do.
        limits: Longest file that is read.

    Raises:
        AdapterError: The file cannot be read, or does not fit the model; the type is `error`.
    """
    try:
        return model.model_validate_json(read_at_most(path, limits.max_file_bytes))
    except OSError as cause:
        raise error(f"No {what} can be read from {os.fspath(path)}: {cause.strerror or cause}. {remedy}") from cause
    except ValidationError as cause:
        raise error(f"{os.fspath(path)} is not a {what}: {first_mistake(cause)}. {remedy}") from cause
