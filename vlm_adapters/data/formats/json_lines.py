"""Files with a JSON object per line, of which only the places of the lines are kept in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from vlm_adapters.data.dataset import Problem
from vlm_adapters.errors import DataError, PhraseError


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line stands.

    Attributes:
        number: Counted from 1.
        offset: Of its first byte.
    """

    number: int
    offset: int


Model = TypeVar("Model", bound=BaseModel)


class JsonLines(Generic[Model]):
    """A file whose every line is an object of one model; blank lines are passed over.

    Args:
        path: The file.
        model: What a line holds.

    Raises:
        DataError: The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], model: type[Model]) -> None:
        self.path = Path(path)
        self._model = model
        if not self.path.is_file():
            raise DataError(f"There is no file {self.path}. Check the path.")

    def usable(self, check: Callable[[Line, Model], object]) -> tuple[tuple[Line, ...], tuple[Problem, ...]]:
        """Read all lines once: where those stand that can be used, and what is wrong with the others.

        Args:
            check: Raises a DataError or PhraseError for a line that cannot be used.
        """
        lines, problems = [], []
        for line, raw in self._raw():
            try:
                check(line, self._parsed(raw))
            except (DataError, PhraseError) as error:
                problems.append(Problem(self.place(line), str(error)))
            else:
                lines.append(line)
        return tuple(lines), tuple(problems)

    def read(self, line: Line) -> Model:
        """Read one line again.

        Raises:
            DataError: The file has changed since.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(line.offset)
                return self._parsed(file.readline())
        except (OSError, DataError) as error:
            raise DataError(f"The file has changed since it was opened: {error}. Open the set again.") from error

    def place(self, line: Line) -> str:
        """`file:line`, as editors write it."""
        return f"{self.path}:{line.number}"

    def _raw(self) -> Iterator[tuple[Line, bytes]]:
        offset = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield Line(number, offset), raw
                offset += len(raw)

    def _parsed(self, raw: bytes) -> Model:
        try:
            return self._model.model_validate_json(raw.strip())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            told = first["msg"].removeprefix("Value error, ").replace(" at line 1 column ", " at column ")
            raise DataError(f"{where + ': ' if where else ''}{told}.") from None
