"""Files are opened only if they are files, and read only as far as is allowed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_adapters.reading import CountedBytes, CountedFile, open_regular, read_at_most


def make_socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as server:
        patch.chdir(path.parent)  # the name of a socket has at most 108 letters
        server.bind(path.name)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_not_a_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    SPECIAL[kind](tmp_path / "a")
    with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
        open_regular(tmp_path / "a")


def test_an_impossible_name_is_an_error_of_the_system() -> None:
    for name in ("a\0b", "x" * 5000, "\ud83d", ""):
        with pytest.raises(OSError, match=r"\S"):
            open_regular(name)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    with open_regular(tmp_path / "b") as file:
        assert file.read() == b"content"


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_at_most(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        read_at_most(tmp_path / "a", 4)


def test_a_file_that_says_it_is_empty_is_read_all_the_same() -> None:
    assert read_at_most("/proc/self/status", 10**6).startswith(b"Name:")
    with pytest.raises(OSError, match="longer than 10 bytes"):
        read_at_most("/proc/self/status", 10)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_header_takes_a_bounded_number_of_reads(where: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 30_000)
    file = CountedBytes(b"x" * 30_000) if where == "memory" else CountedFile(open_regular(tmp_path / "a").detach())
    with file:
        assert b"".join(file.read(1) for _ in range(20_000)) == b"x" * 20_000
        with pytest.raises(OSError, match="header is longer"):
            file.read(1)
