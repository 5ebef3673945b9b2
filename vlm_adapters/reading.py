"""The one function through which files that strangers made are opened: regular files only.

A named pipe blocks whoever opens it, `/dev/zero` never ends, and some devices act when they are read.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file to read its bytes; links to one are followed.

    Raises:
        OSError: It is missing or cannot be opened, its name is impossible, or it is a folder, pipe, socket or device,
            which is not opened.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - `Path` cannot hold every name that may come here
        if not stat.S_ISREG(mode):
            raise OSError(f"it is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")
        return Path(path).open("rb")
    except ValueError as error:  # a name with a zero character
        raise OSError(f"its name is impossible ({error})") from error


def read_at_most(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: As `open_regular`, or it is longer.
    """
    with open_regular(path) as file:
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise OSError(f"it is longer than {most:,} bytes")
    return content
