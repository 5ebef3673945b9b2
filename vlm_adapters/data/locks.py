"""Locks that die with their holder, and temporaries that are known to be dead by them.

A lock is a small file that says who holds it, locked by the operating system (`flock`, on Windows `msvcrt.locking`):
however its holder ends, the lock is free. Where a file system has no locks, a lock file that is there counts as held,
and `TAKE_OVER` in the environment overrides it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from vlm_adapters.errors import OutputError
from vlm_adapters.limits import shown

TAKE_OVER = "VLM_ADAPTERS_TAKE_OVER"
"""Environment variable that overrides lock files on a file system without locks."""

FOLDER_LOCK = ".vlm-adapters.lock"

IS_WINDOWS = os.name == "nt"
"""There an open file is not removed or replaced, a folder is not opened, and a rename replaces no folder."""

_LEFTOVER = re.compile(r"(?P<stem>\.(?P<name>.*)\.[0-9a-f]{32})\.(?:tmp|lock)", re.DOTALL)
_MOST_NAME = 200
"""Most bytes of a name that its temporaries repeat; a file system allows 255 in all."""
_LOCKED_BYTE = 1 << 30
"""Windows locks bytes against reading, too: one far behind what is written, so that others can read who holds it."""


class _HeldError(Exception):
    """Another process holds the lock, or its file was removed before it could be locked."""


@dataclass(frozen=True)
class _Lock:
    file: Path
    descriptor: int

    def release(self) -> None:
        """Remove the file, and let go of the lock."""
        if IS_WINDOWS:
            os.close(self.descriptor)
            with suppress(OSError):
                self.file.unlink()
            return
        if _is_at(self.descriptor, self.file):  # the folder may have been removed, and made again by another process
            with suppress(OSError):
                self.file.unlink()
        os.close(self.descriptor)


_held: dict[Path, tuple[int, int]] = {}
"""Lock files that are held here: by which process (a fork inherits this table) and which thread."""


@contextmanager
def locked_folder(folder: str | os.PathLike[str], *inside: str) -> Iterator[None]:
    """Hold a folder while files are written into it, and first remove what killed processes left there.

    The same thread may hold a folder twice. The folder is created; it is removed again if it stays empty.

    Args:
        folder: The folder.
        inside: Patterns of its subfolders that belong to it, such as `"step-*"`: they are cleaned, too.

    Raises:
        OutputError: Another process holds the folder, or it cannot be written to.
    """
    path = Path(folder)
    is_new = not path.exists()
    try:
        with _hold(path, path / FOLDER_LOCK):
            for place in (path, *(found for pattern in inside for found in path.glob(pattern))):
                remove_leftovers(place)
            yield
    finally:
        if is_new:
            with suppress(OSError):  # it stays, unless an error came before anything was written
                path.rmdir()


@contextmanager
def locked_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the name of a file or folder that appears at the end; remove what killed processes left of it beside it.

    Raises:
        OutputError: Another process is about to write it, or its folder cannot be written to.
    """
    final = Path(path)
    with _hold(final, final.with_name(f".{_short(final.name)}{FOLDER_LOCK}")):
        remove_leftovers(final.parent, of=final.name)
        yield


@contextmanager
def _hold(path: Path, file: Path) -> Iterator[None]:
    key, holder = file.absolute(), (os.getpid(), threading.get_ident())
    if _held.get(key) == holder:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(file)
    except _HeldError as error:
        raise OutputError(f"{path} is in use by {error}. Wait until it has ended, or choose another path.") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another path.") from error
    _held[key] = holder
    try:
        yield
    finally:
        del _held[key]
        lock.release()


@contextmanager
def temporary_beside(final: Path) -> Iterator[Path]:
    """Yield a path beside another one for what is not complete; whatever is there after the block is removed.

    Its name is of no other process, on this or any other machine, and others see by its lock that it is in use.
    """
    lock = None
    while lock is None:
        stem = f".{_short(final.name)}.{secrets.token_hex(16)}"
        with suppress(_HeldError):  # who looks for leftovers was faster
            lock = _acquire(final.with_name(f"{stem}.lock"))
    temporary = final.with_name(f"{stem}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)
        lock.release()


def remove_leftovers(folder: Path, *, of: str | None = None) -> None:
    """Remove the temporary files and folders of dead processes from a folder, and nothing else.

    Args:
        folder: The folder.
        of: Name of the file or folder whose temporaries are removed; None for all.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    matches = [match for path in folder.iterdir() if (match := _LEFTOVER.fullmatch(path.name))]
    for stem in sorted({match["stem"] for match in matches if of is None or match["name"] == _short(of)}):
        try:
            lock = _acquire(folder / f"{stem}.lock")
        except (_HeldError, OSError):
            continue  # at work, or not ours to remove
        _remove(folder / f"{stem}.tmp")
        lock.release()


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_MOST_NAME])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _acquire(file: Path) -> _Lock:
    """Lock a file, which is created and says who holds it.

    Raises:
        OSError: The file cannot be created.
    """
    while True:
        descriptor, is_new = _open(file)
        try:
            _lock(descriptor, file, is_new=is_new)
            if not _is_at(descriptor, file):
                os.close(descriptor)  # its holder ended, and removed it, after it was opened here
                continue
            with suppress(OSError):  # a full disk: the lock holds without a name in it
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, _this_process())
        except BaseException:
            os.close(descriptor)
            raise
        return _Lock(file, descriptor)


def _open(file: Path) -> tuple[int, bool]:
    """Open a lock file, and say whether it was created; a link or a device is not followed."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    while True:
        try:
            return os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            with suppress(FileNotFoundError):  # removed meanwhile
                descriptor = os.open(file, flags)
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and not file.is_symlink():
                    return descriptor, False
                os.close(descriptor)
                raise OSError(errno.EEXIST, f"{file.name} is there and is not a lock file") from None


def _lock(descriptor: int, file: Path, *, is_new: bool) -> None:
    """Lock an open file, or raise `_HeldError`."""
    try:
        _system_lock(descriptor)
    except (BlockingIOError, PermissionError) as error:
        raise _HeldError(_holder(descriptor)) from error
    except OSError as error:  # the file system has no locks
        if not is_new and os.environ.get(TAKE_OVER) != "1":
            raise _HeldError(
                f"{_holder(descriptor)}, as {file} says. This file system has no locks, so nobody knows whether "
                f"it still runs; if it does not, run `adapters --take-over ...` or set {TAKE_OVER}=1"
            ) from error


def _system_lock(descriptor: int) -> None:
    if IS_WINDOWS:
        msvcrt: Any = import_module("msvcrt")
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl: Any = import_module("fcntl")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False


def _this_process() -> bytes:
    """Who holds a lock, for the message of whoever does not get it."""
    return json.dumps(
        {
            "process": os.getpid(),
            "machine": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
        }
    ).encode()


def _holder(descriptor: int) -> str:
    """Who holds a lock, as its file says."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        held = json.loads(os.read(descriptor, 4096))
        process, since = int(held["process"]), str(held["since"])[:40]
        return f"process {process} on {shown(held['machine'])} since {since} ({shown(held['command'], 200)})"
    return "another process"
