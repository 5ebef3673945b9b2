"""The one way in which files that strangers made are opened: regular files only, and bounded reading.

A named pipe blocks whoever opens it, `/dev/zero` never ends, and some devices act when they are read.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader, BytesIO
from pathlib import Path

_CHUNK = 1024**2
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


class _Counting:
    """Counts what another library reads of a header, which a hostile file can make endless, letter by letter."""

    _reads_left = 20_000
    _bytes_left = 32 * 1024**2

    def allow_decoding(self) -> None:
        """Allow as many reads as the pixels of a file of this size take, from now on."""
        size = self.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
        self._reads_left += size // 256
        self._bytes_left += 16 * size

    def read(self, size: int | None = -1, /) -> bytes:
        content: bytes = super().read(size)  # type: ignore[misc]
        self._reads_left -= 1
        if size is not None and size >= 0:  # what is read at once is bounded by the file itself
            self._bytes_left -= len(content)
        if self._reads_left < 0 or self._bytes_left < 0:
            raise OSError("its header is longer than that of any image")
        return content


class CountedFile(_Counting, BufferedReader):
    """A file of which a header takes a bounded number of reads."""


class CountedBytes(_Counting, BytesIO):
    """The same in memory."""


def read_at_most(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: As `open_regular`, or it is longer.
    """
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        # a read of `most` bytes would take that much memory; files of the system say that they have none
        content = file.read(length + 1) if length <= most else b""
        while length <= most and (more := file.read(_CHUNK)):
            content += more
            length = len(content)
    if length > most:
        raise OSError(f"it is longer than {most:,} bytes")
    return content
