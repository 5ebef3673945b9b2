"""Files with a JSON object per line, of which only the positions of the lines are kept in memory."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from pydantic import ValidationError

from vlm_adapters.data.dataset import Problem, ProblemList
from vlm_adapters.data.documents import check_encoding
from vlm_adapters.data.validated import Model, first_mistake
from vlm_adapters.errors import DataError, PhraseError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits
from vlm_adapters.reading import open_regular


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
        limits: Longest line, most values in one, most lines, and most of them that may be broken.

    Raises:
        DataError: The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], model: type[Model], limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = Path(path)
        self._model, self._limits = model, limits
        try:
            with open_regular(path) as file:
                check_encoding(file.read(4))
        except FileNotFoundError:
            raise DataError(f"There is no file {self.path}. Check the path.") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read: {error}. Check the file.") from error

    def usable(self, check: Callable[[Line, Model], object]) -> tuple[tuple[Line, ...], tuple[Problem, ...]]:
        """Read all lines once: the positions of those that can be used, and what is wrong with the others.

        Args:
            check: Raises a DataError or PhraseError for a line that cannot be used.

        Raises:
            DataError: The file cannot be read, is beyond the limits, or too many of its lines are broken.
        """
        lines, problems = [], ProblemList(self.path, self._limits.max_problems)
        for line, raw in self._raw():
            try:
                check(line, self._parsed(raw))
            except (DataError, PhraseError) as error:
                problems.add(self.place(line), str(error))
            else:
                lines.append(line)
        return tuple(lines), problems.as_tuple()

    def read(self, line: Line) -> Model:
        """Read one line again.

        Raises:
            DataError: The file has changed since.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(line.offset)
                return self._parsed(file.readline(self._limits.max_line_bytes + 1))
        except (OSError, DataError) as error:
            raise DataError(f"The file has changed since it was opened: {error}. Open the set again.") from error

    def place(self, line: Line) -> str:
        """The place of a line as `file:line`, as editors write it."""
        return f"{self.path}:{line.number}"

    def _raw(self) -> Iterator[tuple[Line, bytes]]:
        offset, limits = 0, self._limits
        try:
            with open_regular(self.path) as file:
                mark = file.read(len(BOM_UTF8))
                offset = len(mark) if mark == BOM_UTF8 else 0
                file.seek(offset)
                for number in range(1, limits.max_lines + 2):
                    raw = file.readline(limits.max_line_bytes + 1)
                    if not raw:
                        return
                    if len(raw) > limits.max_line_bytes:
                        raise DataError(
                            f"{self.path}:{number}: The line is longer than {limits.max_line_bytes:,} bytes."
                        )
                    if raw.strip():
                        yield Line(number, offset), raw
                    offset += len(raw)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}. Check the file.") from error
        raise DataError(f"{self.path} has more than {limits.max_lines:,} lines. Divide it.")

    def _parsed(self, raw: bytes) -> Model:
        values = raw.count(b",") + 1
        if values > self._limits.max_line_values:
            raise DataError(
                f"The line holds about {values:,} values; at most {self._limits.max_line_values:,} are read."
            )
        try:
            return self._model.model_validate_json(raw.strip())
        except ValidationError as error:
            # the JSON is one line of the file, whose number `place` gives
            raise DataError(f"{first_mistake(error)}.".replace(" at line 1 column ", " at column ")) from None
