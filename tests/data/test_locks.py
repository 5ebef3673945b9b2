"""One writer per folder, and only what dead processes left is removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.data import locks
from vlm_adapters.data.convert import write_folder
from vlm_adapters.data.files import whole_file, whole_folder
from vlm_adapters.data.locks import FOLDER_LOCK, TAKE_OVER, locked_folder, locked_name, remove_leftovers
from vlm_adapters.data.open import open_dataset
from vlm_adapters.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from vlm_adapters.data.files import whole_file, whole_folder
from vlm_adapters.data.locks import locked_folder, locked_name
folder = Path(sys.argv[1])
with ExitStack() as stack:
    stack.enter_context(locked_folder(folder))
    stack.enter_context(locked_name(folder / "set"))
    stack.enter_context(whole_file(folder / "a.txt")).write_text("half")
    (stack.enter_context(whole_folder(folder / "set")) / "b.txt").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder and is in the middle of writing."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_second_process_in_a_folder_is_refused_and_says_who_holds_it(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        message = rf"{tmp_path} is in use by process {process.pid} on .* since .*\. Wait until it has ended, or c"
        with pytest.raises(OutputError, match=message), locked_folder(tmp_path):
            pass
        with pytest.raises(OutputError, match=r"set is in use by process"), locked_name(tmp_path / "set"):
            pass


def test_what_a_live_process_is_writing_stays_and_goes_when_it_is_dead(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        before = names(tmp_path)
        assert len(before) == 6
        remove_leftovers(tmp_path)
        assert names(tmp_path) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked_name(tmp_path / "set"):
            assert not [name for name in names(tmp_path) if ".set." in name and name.endswith(".tmp")]
        with locked_folder(tmp_path):
            assert names(tmp_path) == {FOLDER_LOCK}
    assert names(tmp_path) == set()


def test_a_thread_may_hold_a_folder_twice_and_another_may_not(tmp_path: Path) -> None:
    errors: list[OutputError] = []

    def other() -> None:
        try:
            with locked_folder(tmp_path):
                pass
        except OutputError as error:
            errors.append(error)

    with locked_folder(tmp_path):
        with locked_folder(tmp_path):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert names(tmp_path) == {FOLDER_LOCK}
    assert len(errors) == 1


HEX = "0123456789abcdef" * 2


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_only_files_of_exactly_our_form_are_removed(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("folder")
    persons = {
        f"x{name}",
        f".a.{HEX[1:]}.tmp",
        f".a.{HEX}.tmp.bak",
        f"a.{HEX}.tmp",
        f".a.{HEX.upper()}.tmp",
        ".a.7.tmp",
    }
    for person in persons:
        (folder / person).touch()
    (folder / f".{name}.{HEX}.tmp").touch()
    (folder / f".{name}.{HEX[::-1]}.tmp").mkdir()
    (folder / f".{name}.{HEX[::-1]}.lock").touch()
    remove_leftovers(folder)
    assert names(folder) == persons


def test_a_folder_behind_a_link_is_not_cleaned(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / f".a.{HEX}.tmp").touch()
    (tmp_path / "link").symlink_to("theirs")
    with locked_folder(tmp_path, "link"):
        pass
    assert names(tmp_path / "theirs") == {f".a.{HEX}.tmp"}


def test_a_new_folder_in_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "new"):
        pass
    (tmp_path / "there").mkdir()
    with locked_folder(tmp_path / "there"):
        pass
    assert names(tmp_path) == {"there"}


def test_a_lock_that_is_a_link_or_a_pipe_is_an_error_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FOLDER_LOCK).symlink_to(tmp_path / "precious")
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / FOLDER_LOCK)
    for name in ("a", "b"):
        with pytest.raises(OutputError, match="cannot be written"), locked_folder(tmp_path / name):
            pass
    assert (tmp_path / "precious").read_text() == "text"


def no_locks(_: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_the_second_run_is_refused_and_the_option_that_overrides_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_system_lock", no_locks)
    with locked_folder(tmp_path), whole_file(tmp_path / "a") as temporary:
        temporary.touch()
        remove_leftovers(tmp_path)
        assert temporary.exists()
    assert names(tmp_path) == {"a"}
    (tmp_path / FOLDER_LOCK).write_text("what a killed process left")
    with pytest.raises(OutputError, match=rf"another process, as .* `adapters --take-over .* set {TAKE_OVER}=1"):
        ExitStack().enter_context(locked_folder(tmp_path))
    monkeypatch.setenv(TAKE_OVER, "1")
    with locked_folder(tmp_path):
        pass
    assert names(tmp_path) == {"a"}


def test_two_writers_have_names_of_their_own(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as one, whole_file(tmp_path / "a") as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("length", [1, 200, 255])
def test_names_as_long_as_the_file_system_allows_are_written(tmp_path: Path, length: int) -> None:
    name = ("é" * 127 + "a")[-length:] if length < 255 else "é" * 127 + "a"
    with whole_file(tmp_path / name) as temporary:
        temporary.touch()
    with whole_folder(tmp_path / f"{name[:-1]}b") as folder:
        (folder / "a").touch()
    assert names(tmp_path) == {name, f"{name[:-1]}b"}


def test_a_folder_that_was_removed_meanwhile_is_not_unlocked_for_another(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a"):
        (tmp_path / "a").rename(tmp_path / "gone")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / FOLDER_LOCK).touch()  # another process, which holds the new folder
    assert names(tmp_path / "a") == {FOLDER_LOCK}


def test_what_a_kill_left_beside_a_finished_set_is_removed_by_the_next_start(tmp_path: Path) -> None:
    data = open_dataset("scenes:count=1,seed=1")
    write_folder(data, tmp_path / "set", range(1))
    for left in (f".set.{HEX}.lock", f".set.{HEX}.tmp", f".set{FOLDER_LOCK}"):
        (tmp_path / left).touch()
    with pytest.raises(OutputError, match="already exists and is not an empty folder"):
        write_folder(data, tmp_path / "set", range(1))
    assert names(tmp_path) == {"set"}
