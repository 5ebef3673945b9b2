"""Pickles of plain containers; others are not read, since a pickle can run any code.

A pickle is a program of operations, one byte each. They are looked over before Python's fast reader gets them: eight
bytes can ask it for gigabytes, and as a key of a dict a tuple that holds another many times over takes forever.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import override

from vlm_adapters.errors import DataError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.reading import read_at_most

# up to 500 operations of plain containers in a row, but those whose length stands before their text; the index of a
# memo has at most seven digits, or three bytes
_RUN = re.compile(
    rb"""(?:
        [N\x88\x89(\]}ldaeus\x94]
      | [Khq]. | M.. | J.{4} | G.{8} | [rj]..[\x00-\x97]\x00 | \x80[\x00-\x05] | \x95.{8}
      | [pg][0-9]{1,7}\n | [IFLSV][^\n]*\n
    ){1,500}""",
    re.VERBOSE | re.DOTALL,
)
_TUPLES = b")t\x85\x86\x87"
_LENGTH_BYTES = {b"U": 1, b"T": 4, b"X": 4, b"\x8c": 1, b"\x8d": 8, b"C": 1, b"B": 4, b"\x8a": 1, b"\x8b": 4}
"""Bytes of the length of a text or a long number that stands after it."""
_IMPORTING = b"ci\x93PQ\x82\x83\x84"
"""Operations at which the reader asks `find_class` or `persistent_load`, which refuse."""
_NUMBERS = b"\x8a\x8b"
_LONGEST_NUMBER = 4096


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, tuples and dicts, and refuses anything that would have to be imported."""

    @override
    def find_class(self, module: str, name: str) -> object:
        raise DataError(f"wants to load {shown(f'{module}.{name}')[1:-1]}")

    @override
    def persistent_load(self, pid: object) -> object:
        raise DataError(f"wants to load the external object {shown(pid)}")


def _with_plain_keys(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
    """Check the keys on the stack before an operation of the slow reader puts them into a dict."""

    def checked(reader: Any) -> None:
        if any(isinstance(key, tuple) for key in reader.stack[keys]):
            raise DataError("has a tuple as the key of a dict")
        load(reader)

    return checked


_Slow: Any = vars(pickle)["_Unpickler"]  # the reader that Python has for systems without its C code


class _TupleUnpickler(_Slow):  # type: ignore[misc]
    """The same for pickles with tuples, none of which may be a key: a key is hashed, and that may take forever."""

    find_class = _PlainUnpickler.find_class
    persistent_load = _PlainUnpickler.persistent_load
    dispatch = _Slow.dispatch | {
        pickle.SETITEM[0]: _with_plain_keys(_Slow.load_setitem, slice(-2, -1)),
        pickle.SETITEMS[0]: _with_plain_keys(_Slow.load_setitems, slice(None, None, 2)),
        pickle.DICT[0]: _with_plain_keys(_Slow.load_dict, slice(None, None, 2)),
    }


def read_plain_pickle(path: Path, limits: Limits = DEFAULT_LIMITS) -> object:
    """Read a pickle that holds nothing but plain containers. Nothing in it is imported or run.

    Strings of Python 2 are read as UTF-8, or all as Latin-1 if one of them is not UTF-8.

    Raises:
        DataError: The file is missing, damaged, beyond the limits, or wants to load something, which the message names.
    """
    try:
        content = read_at_most(path, limits.max_file_bytes)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    try:
        reader = _TupleUnpickler if _check_operations(content, limits) else _PlainUnpickler
        try:
            return reader(io.BytesIO(content), encoding="utf-8").load()
        except UnicodeDecodeError:
            return reader(io.BytesIO(content), encoding="latin-1").load()
    except DataError as error:
        raise DataError(
            f"{path} {error}, but only plain lists, dicts, strings and numbers are read. "
            "The published files hold nothing else: download it again from a source that you trust."
        ) from None
    except Exception as error:  # a damaged pickle raises errors of every kind
        reason = shown(str(error), 200)[1:-1]
        raise DataError(f"{path} is not a readable pickle: {reason}. Download it again.") from error


def _check_operations(content: bytes, limits: Limits) -> bool:
    """Look over the operations up to the end, or to one that the reader refuses, and return whether one makes a tuple.

    Raises:
        ValueError: There is an operation that no plain container needs, or the containers are beyond the limits.
    """
    containers = sum(content.count(letter) for letter in b"(]})\x85\x86\x87")
    if containers > limits.max_containers:
        raise ValueError(f"it holds about {containers:,} containers; at most {limits.max_containers:,} are read")
    position, has_tuples = 0, False
    while position < len(content):
        if run := _RUN.match(content, position):
            position = run.end()
            continue
        operation = content[position : position + 1]
        if operation == b"." or operation in _IMPORTING:
            break
        position += 1
        if operation in _TUPLES:
            has_tuples = True
        elif (size := _LENGTH_BYTES.get(operation)) is not None:
            length = int.from_bytes(content[position : position + size], "little")
            if operation in _NUMBERS and length > _LONGEST_NUMBER:
                raise ValueError(f"a number of {length:,} bytes")
            position += size + length
        else:
            raise ValueError(f"the operation {operation!r} at byte {position - 1:,} makes no plain container")
    return has_tuples
