"""A file is written completely or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_adapters.data.files import whole_file, whole_folder, write_json
from vlm_adapters.errors import OutputError


def test_what_was_written_is_at_the_final_name(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("a.txt", "new")]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "b" / "c" / "a.json", {})
    assert (tmp_path / "b" / "c" / "a.json").is_file()


def test_the_old_file_remains_until_the_new_one_is_complete(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old", encoding="utf-8")
    with whole_file(final) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert final.read_text(encoding="utf-8") == "old"
        assert temporary.parent == final.parent  # a rename within one folder is atomic
    assert final.read_text(encoding="utf-8") == "half"


def fail_halfway(final: Path, error: type[BaseException]) -> None:
    with whole_file(final) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError if error is OSError else error):
        fail_halfway(final, error)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    final.write_text("old", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"), whole_file(final):
        pass
    assert final.read_text(encoding="utf-8") == "old"


def test_json_keeps_every_letter_and_ends_with_a_line_break(tmp_path: Path) -> None:
    content = {"words": "红色 é 😀", "number": 1.5, "nothing": None}
    write_json(tmp_path / "a.json", content)
    written = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(written) == content
    assert "红色 é 😀" in written
    assert written.endswith("}\n")


def test_what_is_not_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    for final in (tmp_path / "new" / "project", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with whole_folder(final) as temporary:
            (temporary / "a.txt").write_text("new", encoding="utf-8")
            assert temporary.parent == final.parent
            assert not (final / "a.txt").exists()
        assert (final / "a.txt").read_text(encoding="utf-8") == "new"
        assert not list(final.parent.glob(".*.tmp"))


def half_a_folder(final: Path) -> None:
    with whole_folder(final) as temporary:
        (temporary / "a.txt").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt


def test_a_folder_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        half_a_folder(tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.txt").write_text("old", encoding="utf-8")
    refused = pytest.raises(OutputError, match=r"project cannot be written: .*\. Choose another path\.")
    with refused, whole_folder(tmp_path / "project"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["project", "mine.txt"]
