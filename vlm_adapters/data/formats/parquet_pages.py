"""How much a parquet file asks for, from its footer and the headers of its pages, before anything is decoded.

A file of two kilobytes can hold a list of a billion texts: runs of equal values take no room. pyarrow makes room for
what the header of a page says, so these are read here, by the rules of Thrift's compact protocol.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits
from vlm_adapters.reading import open_regular

_MAGIC = b"PAR1"
_LONGEST_FOOTER, _LONGEST_HEADER = 4 * 1024**2, 64 * 1024
_MOST_PAGES = 10_000
"""Pages of a column of a row group."""

_DEEPEST = 16
_REPEATED = 2
"""The repetition of a field that stands any number of times."""


Struct = dict[int, Any]
"""The fields of a Thrift struct by their numbers."""


class _Page(NamedTuple):
    is_dictionary: bool
    values: int
    size: int


def check_pages(path: Path, columns: Sequence[str], limits: Limits) -> None:
    """Check that decoding some columns of a file row by row takes bounded time and memory.

    Args:
        path: The file.
        columns: The columns; those that they hold belong to them.
        limits: Most values of a column of a row group, and most bytes of one.

    Raises:
        DataError: It takes more.
        ValueError: The footer or the header of a page is malformed.
        OSError: The file cannot be read.
    """
    with open_regular(path) as file:
        footer = _footer(file)
        in_lists = _are_in_lists(footer[2])
        for group in footer.get(4, []):
            for chunk, in_list in zip(group[1], in_lists, strict=True):
                names = [name.decode() for name in chunk[3][3]]
                if names[0] in columns:
                    _check_column(f"{path} {'.'.join(names)}", list(_pages(file, chunk[3])), limits, in_list=in_list)


def _check_column(what: str, pages: list[_Page], limits: Limits, *, in_list: bool) -> None:
    values = sum(page.values for page in pages if not page.is_dictionary)
    size = sum(page.size for page in pages)
    if in_list:  # one row may repeat a value of the dictionary without end
        size += values * max((page.size for page in pages if page.is_dictionary), default=0)
    if values > limits.max_line_values or size > limits.max_file_bytes:
        raise DataError(
            f"{what} holds up to {values:,} values of {size:,} bytes; at most {limits.max_line_values:,} and "
            f"{limits.max_file_bytes:,} bytes of a row group are read. Write it with smaller ones."
        )


def _are_in_lists(schema: Sequence[Struct]) -> list[bool]:
    """For every column that holds values, whether it is in a list, in which a row has any number of them."""
    elements = iter(schema)

    def columns(count: int, *, in_list: bool) -> Iterator[bool]:
        for _ in range(count):
            element = next(elements)
            is_inner = in_list or element.get(3) == _REPEATED
            if element.get(5):
                yield from columns(element[5], in_list=is_inner)
            else:
                yield is_inner

    return list(columns(next(elements)[5], in_list=False))


def _footer(file: BufferedReader) -> Struct:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read()
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or not 0 < length <= min(_LONGEST_FOOTER, end - 8):
        raise ValueError("it has no footer of a usable length")
    file.seek(end - 8 - length)
    return _Compact(file.read(length)).struct()


def _pages(file: BufferedReader, about: Struct) -> Iterator[_Page]:
    """Read the headers of the pages of a column of a row group."""
    place = about[9] if 11 not in about else min(about[9], about[11])
    end = place + about[7]
    for _ in range(_MOST_PAGES):
        if place >= end:
            return
        file.seek(place)
        compact = _Compact(file.read(_LONGEST_HEADER))
        header = compact.struct()
        counted = header.get(5) or header.get(7) or header.get(8) or {1: 0}
        if min(counted[1], header[2], header[3]) < 0:
            raise ValueError("a page has a negative size")
        yield _Page(7 in header, counted[1], header[2])
        place += compact.place + header[3]
    raise ValueError(f"a column has more than {_MOST_PAGES:,} pages in a row group")


class _Compact:
    """Reads values in Thrift's compact protocol; each takes at least a byte, so that work is bounded by the length."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self, depth: int = 0) -> Struct:
        """Read a struct."""
        if depth > _DEEPEST:
            raise ValueError("structs are nested too deeply")
        fields: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = head & 15 == 1 if head & 15 in (1, 2) else self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._number())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._number()
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"values of kind {kind} are not those of parquet")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, length: int) -> bytes:
        found = self._content[self.place : self.place + length]
        if len(found) != length:
            raise ValueError("it ends within a value")
        self.place += length
        return found

    def _number(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number is longer than 64 bits")
        return number | byte << shift

    def _integer(self) -> int:
        number = self._number()
        return number >> 1 ^ -(number & 1)
