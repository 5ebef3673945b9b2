"""Writing files atomically: a process that is killed leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vlm_adapters.data.locks import IS_WINDOWS, temporary_beside
from vlm_adapters.errors import AdapterError, OutputError


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn what the system raises while something is written to a path into an `OutputError`."""
    try:
        yield
    except AdapterError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another path.") from error


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces it when the block ends without an error.

    Raises:
        OutputError: The path cannot be written to.
    """
    final = Path(path)
    with output_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(final) as temporary:
            yield temporary
            _file_to_disk(temporary)
            temporary.replace(final)
        _names_to_disk(final.parent)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path`, new or an empty folder, if the block raises no error.

    Raises:
        OutputError: The path cannot be written to.
    """
    final = Path(path)
    with output_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(final) as temporary:
            temporary.mkdir()
            yield temporary
            if final.is_dir():
                final.rmdir()  # Windows replaces no folder, not even an empty one
            temporary.replace(final)
        _names_to_disk(final.parent)


def write_json(path: str | os.PathLike[str], content: Mapping[str, object] | Sequence[object]) -> None:
    """Write indented JSON atomically."""
    with whole_file(path) as temporary:
        temporary.write_bytes(json_bytes(content))


def json_bytes(content: Mapping[str, object] | Sequence[object]) -> bytes:
    """Indented JSON as every file here has it: equal content gives equal bytes, on every system."""
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a file that is there: all of it or, with an error, nothing.

    Raises:
        OutputError: The file is gone, or the disk is full.
    """
    with output_errors(path), path.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            written = file.write(line)
        except OSError:
            file.truncate(end)
            raise
        if written != len(line):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _file_to_disk(path: Path) -> None:
    """Wait until a file would survive a loss of power; Windows wants to write it for that."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_to_disk(folder: Path) -> None:
    """Wait until the names in a folder would survive a loss of power, where the system can."""
    if IS_WINDOWS:
        return
    with suppress(OSError):  # some file systems cannot sync a folder; the file is there
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
