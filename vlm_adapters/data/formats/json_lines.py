"""Files with a JSON object per line, of which only the positions of the lines are kept in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from pydantic import ValidationError

from vlm_adapters.data.dataset import Problem
from vlm_adapters.data.validated import Model, first_mistake
from vlm_adapters.errors import DataError, PhraseError


@dataclass(frozen=True, slots=True)
class Line:
    """The position of a line in its file.

    Attributes:
        number: Its number, counted from 1.
        offset: The offset of its first byte.
    """

    number: int
    offset: int


class JsonLines(Generic[Model]):
    """A file in which every line is an object of one model; blank lines are skipped.

    Args:
        path: The file.
        model: The model of a line.

    Raises:
        DataError: The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], model: type[Model]) -> None:
        self.path = Path(path)
        self._model = model
        if not self.path.is_file():
            raise DataError(f"There is no file {self.path}. Check the path.")

    def usable(self, check: Callable[[Line, Model], object]) -> tuple[tuple[Line, ...], tuple[Problem, ...]]:
        """Read all lines once: the positions of those that can be used, and what is wrong with the others.

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
        """The place of a line as `file:line`, as editors write it."""
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
            # the JSON is one line of the file, whose number `place` gives
            raise DataError(f"{first_mistake(error)}.".replace(" at line 1 column ", " at column ")) from None
