"""Windows, which was not at hand: its rules about open files, folders, links and locks, laid over this system's."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from vlm_adapters.data import files, locks
from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.files import append_line, whole_file, whole_folder, write_json
from vlm_adapters.data.locks import FOLDER_LOCK, locked_folder, locked_name, remove_leftovers
from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import OutputError
from vlm_adapters.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

fcntl = pytest.importorskip("fcntl", reason="a system that has what Windows lacks")

HEX = "0123456789abcdef" * 2


def open_files() -> set[str]:
    return {str(path.resolve()) for path in Path("/dev/fd").iterdir()}


def refuse(path: Path) -> None:
    raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", str(path))


@pytest.fixture(params=["no links", "links"])
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: C901 - one per function
    """Windows, where a user may or may not make links."""
    plain: dict[str, Callable[..., Any]] = {name: getattr(Path, name) for name in ("unlink", "replace", "symlink_to")}
    system = {name: getattr(os, name) for name in ("open", "fsync")}

    def unlink(self: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - pathlib's own signature
        if str(self) in open_files():
            refuse(self)
        plain["unlink"](self, missing_ok=missing_ok)

    def replace(self: Path, target: Path) -> Path:
        if target.is_dir() or any(Path(name).is_relative_to(self) for name in open_files()):
            refuse(target)
        return Path(plain["replace"](self, target))

    def symlink_to(self: Path, target: str, target_is_directory: bool = False) -> None:  # noqa: FBT001, FBT002
        if request.param == "no links":
            raise OSError(errno.EPERM, "A required privilege is not held by the client")
        assert target_is_directory
        plain["symlink_to"](self, target)

    def open_(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if Path(path).is_dir():
            refuse(Path(path))
        descriptor: int = system["open"](path, flags, *arguments, **options)
        return descriptor

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    def locking(descriptor: int, _: int, count: int) -> None:
        assert (count, os.lseek(descriptor, 0, os.SEEK_CUR)) == (1, 1 << 30)  # not what others have to read
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    for module in (files, locks, checkpoint):
        monkeypatch.setattr(module, "IS_WINDOWS", True)
    for name, stands_in in (("unlink", unlink), ("replace", replace), ("symlink_to", symlink_to)):
        monkeypatch.setattr(Path, name, stands_in)
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "O_BINARY", 0, raising=False)
    monkeypatch.delattr(os, "O_NOFOLLOW")
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # Windows opens no folder to remove what is in it
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("windows")
def test_files_and_folders_are_written_and_nothing_else_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    write_json(tmp_path / "a.json", {"a": 2})
    (tmp_path / "folder").mkdir()
    with whole_folder(tmp_path / "folder") as folder, whole_file(folder / "b") as file:
        file.touch()
    append_line(tmp_path / "a.json", b"3\n")
    assert (tmp_path / "a.json").read_bytes() == b'{\n  "a": 2\n}\n3\n'
    assert names(tmp_path) == {"a.json", "folder"}
    assert names(tmp_path / "folder") == {"b"}


@pytest.mark.usefixtures("windows")
def test_a_folder_has_one_writer_and_what_dead_ones_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".a.{HEX}.tmp").touch()
    (tmp_path / f".b.{HEX}.tmp").mkdir()
    (tmp_path / f".b.{HEX}.lock").touch()
    with locked_folder(tmp_path), whole_file(tmp_path / "c") as temporary:
        temporary.touch()
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 3
        locks._held.clear()  # noqa: SLF001 - as another process would see it
        with (
            pytest.raises(OutputError, match=rf"is in use by process {os.getpid()} on"),
            locked_folder(tmp_path),
        ):
            pass
        locks._held[tmp_path / FOLDER_LOCK] = (0, 0)  # noqa: SLF001
    assert names(tmp_path) == {"c"}


@pytest.mark.usefixtures("windows")
def test_a_data_set_is_converted(tmp_path: Path) -> None:
    data = open_dataset("scenes:count=2,seed=1")
    with locked_name(tmp_path / "elsewhere"):
        write_folder(data, tmp_path / "set", range(2))
    assert names(tmp_path) == {"set"}
    assert len(open_dataset(str(tmp_path / "set"))) == 2
    assert b"\r" not in (tmp_path / "set" / "samples.jsonl").read_bytes()


@pytest.mark.usefixtures("windows")
def test_the_best_of_a_run_is_a_link_or_a_copy_and_moves_on(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / f"step-0000000{step}"
        folder.mkdir()
        (folder / "state.json").write_text(str(step))
        checkpoint._link(tmp_path / "best", folder.name)  # noqa: SLF001
        assert (tmp_path / "best" / "state.json").read_text() == str(step)
    assert names(tmp_path) == {"best", "step-00000001", "step-00000002"}
