"""Writing results so that a kill leaves the old file or the new one, never half of one."""

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
    """Yield a temporary name beside `path`; what was written there takes its place when the block ends well.

    Raises:
        OutputError: The place cannot be written to.
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
        raise OutputError(f"{final} cannot be written: {error.strerror or error}. Give another place.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that processes which were killed left in a folder."""
    for path in folder.glob(".*.tmp"):
        process = path.name.rsplit(".", 2)[-2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Mapping[str, object] | Sequence[object]) -> None:
    """Write JSON, indented, as a whole file."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes its place, which is free or an empty folder, when all is well.

    Raises:
        OutputError: The place cannot be written to.
    """
    final = Path(path)
    temporary = final.parent / f".{final.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had this one's number
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(final)
    except OSError as error:
        raise OutputError(f"{final} cannot be written: {error.strerror or error}. Give another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
