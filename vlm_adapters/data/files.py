"""Writing files atomically: a process that is killed leaves the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vlm_adapters.errors import OutputError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces it when the block ends without an error.

    Raises:
        OutputError: The path cannot be written to.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _to_disk(temporary)
        temporary.replace(final)
        _to_disk(final.parent)
    except OSError as error:
        raise OutputError(f"{final} cannot be written: {error.strerror or error}. Choose another path.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes from a folder."""
    for path in folder.glob(".*.tmp"):
        process = path.name.rsplit(".", 2)[-2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Mapping[str, object] | Sequence[object]) -> None:
    """Write indented JSON atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path`, new or an empty folder, if the block raises no error.

    Raises:
        OutputError: The path cannot be written to.
    """
    final = Path(path)
    temporary = final.parent / f".{final.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process with the same id
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(final)
    except OSError as error:
        raise OutputError(f"{final} cannot be written: {error.strerror or error}. Choose another path.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
