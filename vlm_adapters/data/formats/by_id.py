"""Entries of other people's files by their ids, which are not assumed to be unique, or to be ids at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from vlm_adapters.errors import DataError
from vlm_adapters.limits import shown

Entry = TypeVar("Entry")
_MOST_DIGITS = 40
_MOST_REASONS = 10_000


def whole(value: object) -> int | None:
    """Read a whole number that is written as an integer or as a float, such as `427.0`; None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def identity(value: object) -> int:
    """Read an id that is written as a whole number or as a string of digits.

    Raises:
        DataError: It is neither, or longer than any id.
    """
    if isinstance(value, str) and value.isdecimal() and len(value) <= _MOST_DIGITS:
        return int(value)
    number = whole(value)
    if number is None or abs(number) >= 10**_MOST_DIGITS:
        raise DataError(
            f"The id {shown(value)} is not an integer of at most {_MOST_DIGITS} digits. Fix it in the file."
        )
    return number


class ById(Generic[Entry]):
    """The entries of a list of a file by their ids, of which no more is assumed than has been seen.

    An entry that cannot be used, and two with the same id, are an error only when they are asked for.

    Args:
        path: The file.
        key: The key of the list in the file.
        found: The list.
        read: Reads an entry. Raises a DataError for one that cannot be used.
        name: The key of the id within an entry.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        found: Sequence[object],
        read: Callable[[Mapping[str, Any]], Entry],
        name: str = "id",
    ) -> None:
        self.path, self.key = path, key
        self._entries: dict[int, Entry] = {}
        self._reasons: dict[int, str] = {}
        repeated: set[int] = set()
        for index, entry in enumerate(found):
            number = _id_of(entry, name)
            if number is None or not isinstance(entry, dict):
                continue
            if number in self._entries or number in self._reasons:
                repeated.add(number)
                continue
            try:
                self._entries[number] = read(entry)
            except DataError as error:
                self._reasons[number] = (
                    f"{path} {key}[{index}]: {error}"
                    if len(self._reasons) < _MOST_REASONS
                    else f"It is one of over {_MOST_REASONS:,} unusable entries in {key} of {path}."
                )
        if repeated:
            self._name_repeated(found, name, repeated)

    def _name_repeated(self, found: Sequence[object], name: str, repeated: set[int]) -> None:
        places: dict[int, list[int]] = {}
        for index, entry in enumerate(found):
            if (number := _id_of(entry, name)) in repeated and number is not None:
                places.setdefault(number, []).append(index)
        for number, (first, second, *others) in places.items():
            self._entries.pop(number, None)
            more = f", and {len(others)} more" if others else ""
            self._reasons[number] = (
                f"{self.path} {self.key}[{first}] and {self.key}[{second}]{more} have the same {name} {number}, so it "
                "names none of them. Give every entry its own."
            )

    def __contains__(self, number: object) -> bool:
        """Whether an entry has this id; it may still be unusable."""
        return number in self._entries or number in self._reasons

    def __getitem__(self, number: int) -> Entry:
        """Look up an entry that can be used.

        Raises:
            DataError: There is none with this id, several, or it cannot be used.
        """
        if (entry := self._entries.get(number)) is not None:
            return entry
        raise DataError(
            self._reasons.get(number)
            or f"There is no {shown(number)} in {self.key} of {self.path}. Use files of one release."
        )

    def keep(self, numbers: set[int]) -> None:
        """Forget the entries with other ids."""
        self._entries = {number: self._entries[number] for number in numbers}
        self._reasons = {}


def _id_of(entry: object, name: str) -> int | None:
    if isinstance(entry, dict) and name in entry:
        try:
            return identity(entry[name])
        except DataError:
            return None
    return None
