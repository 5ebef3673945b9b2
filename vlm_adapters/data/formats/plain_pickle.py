"""Pickles of plain containers: the only ones that are read, since a pickle can run any code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

from vlm_adapters.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, tuples, dicts; whatever would have to be imported is refused."""

    def find_class(self, module: str, name: str) -> object:
        raise DataError(f"wants to load {module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise DataError(f"wants to load something from outside, named {pid!r}")


def read_plain_pickle(path: Path) -> object:
    """Read a pickle that holds nothing but plain containers. Nothing in it is imported or run.

    Strings of Python 2 are read as UTF-8, or as Latin-1 if they are not all of it.

    Raises:
        DataError: The file is missing, damaged, or wants to load something; the text says what.
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
            f"{path} {error}, and plain lists, dicts, strings and numbers alone are read. "
            "The published files hold nothing else: download it again from where you trust."
        ) from None
    except Exception as error:  # a damaged pickle raises errors of every kind
        raise DataError(f"{path} is no pickle that can be read: {error}. Download it again.") from error
