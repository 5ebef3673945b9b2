"""Pickles of plain containers; others are not read, since a pickle can run any code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

from typing_extensions import override

from vlm_adapters.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, tuples and dicts, and refuses anything that would have to be imported."""

    @override
    def find_class(self, module: str, name: str) -> object:
        raise DataError(f"wants to load {module}.{name}")

    @override
    def persistent_load(self, pid: object) -> object:
        raise DataError(f"wants to load the external object {pid!r}")


def read_plain_pickle(path: Path) -> object:
    """Read a pickle that holds nothing but plain containers. Nothing in it is imported or run.

    Strings of Python 2 are read as UTF-8, or all as Latin-1 if one of them is not UTF-8.

    Raises:
        DataError: The file is missing, damaged, or wants to load something, which the message names.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    try:
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
        except UnicodeDecodeError:
            return _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except DataError as error:
        raise DataError(
            f"{path} {error}, but only plain lists, dicts, strings and numbers are read. "
            "The published files hold nothing else: download it again from a source that you trust."
        ) from None
    except Exception as error:  # a damaged pickle raises errors of every kind
        raise DataError(f"{path} is not a readable pickle: {error}. Download it again.") from error
