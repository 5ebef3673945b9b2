"""Sets of files that belong together: none of an earlier set is left, and half of one does not look complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import OutputError
from vlm_adapters.grounding import GroundedPhrase, Grounding, PackedMask, PhraseMap
from vlm_adapters.output import write_grounding
from vlm_adapters.output.attention import write_attention
from vlm_adapters.prompt import Phrase


def grounding(phrases: int) -> Grounding:
    mask = np.zeros((12, 16), np.bool_)
    mask[3:7, 4:9] = True
    found = GroundedPhrase(Phrase("a cat", 0, 5), PackedMask.of(mask), 0.9, PhraseMap.of_pixels(mask))
    return Grounding(Image.new("RGB", (16, 12)), "a cat", (found,) * phrases)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def complete(folder: Path) -> bool:
    """What a reader checks: the last file is there, and all that it names."""
    last = folder / "grounding.json"
    return last.is_file() and set(json.loads(last.read_text(encoding="utf-8"))["files"]) <= names(folder)


def test_the_last_file_names_all_and_nothing_else_is_there(tmp_path: Path) -> None:
    written = write_grounding(grounding(3), tmp_path, image_id=1)
    assert {path.name for path in written} == names(tmp_path)
    assert set(json.loads((tmp_path / "grounding.json").read_text(encoding="utf-8"))["files"]) == names(tmp_path)


@pytest.mark.parametrize(("before", "after"), [(3, 1), (101, 2), (1, 3), (3, 0)])
def test_of_an_earlier_grounding_nothing_is_left(tmp_path: Path, before: int, after: int) -> None:
    write_grounding(grounding(before), tmp_path / "used", image_id=1)
    write_grounding(grounding(after), tmp_path / "used", image_id=1)
    write_grounding(grounding(after), tmp_path / "new", image_id=1)
    assert names(tmp_path / "used") == names(tmp_path / "new")
    for name in names(tmp_path / "new"):
        assert (tmp_path / "used" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_files_of_a_person_stay(tmp_path: Path) -> None:
    theirs = {
        "mask_1.png",
        "mask_00.png.bak",
        "mask_007.png",
        "mask_01.jpg",
        "my_mask_01.png",
        "mask_\u0660\u0661.png",
        "note.txt",
    }
    for name in theirs:
        (tmp_path / name).write_bytes(b"mine")
    write_grounding(grounding(2), tmp_path, image_id=1)
    write_grounding(grounding(1), tmp_path, image_id=1)
    assert {name for name in names(tmp_path) if (tmp_path / name).read_bytes() == b"mine"} == theirs


def test_masks_in_a_folder_that_no_grounding_was_written_to_stay(tmp_path: Path) -> None:
    (tmp_path / "mask_07.png").write_bytes(b"mine")
    write_grounding(grounding(1), tmp_path, image_id=1)
    assert (tmp_path / "mask_07.png").read_bytes() == b"mine"


@pytest.mark.parametrize("earlier", [None, 3])
def test_a_stop_between_any_two_files_never_leaves_what_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int | None
) -> None:
    replace = Path.replace
    count = len(write_grounding(grounding(2), tmp_path / "counted", image_id=1))
    for last in range(count):
        folder, done = tmp_path / f"out{last}", []
        if earlier is not None:
            write_grounding(grounding(earlier), folder, image_id=1)

        def stopping(path: Path, target: Path, last: int = last, done: list[Path] = done) -> Path:
            if len(done) == last:
                raise KeyboardInterrupt
            done.append(target)
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stopping)
            with pytest.raises(KeyboardInterrupt):
                write_grounding(grounding(2), folder, image_id=1)
        assert not complete(folder)
        write_grounding(grounding(2), folder, image_id=1)
        assert complete(folder)
        assert names(folder) == names(tmp_path / "counted")


def test_more_phrases_than_an_indexed_image_holds_are_written_without_it(tmp_path: Path) -> None:
    written = {path.name for path in write_grounding(grounding(256), tmp_path, image_id=1)}
    assert "masks.png" not in written
    assert {f"mask_{index:02d}.png" for index in range(256)} < written


def test_sheets_of_an_earlier_run_are_removed(tmp_path: Path, planted: BackboneAdapter, squares: list[Sample]) -> None:
    (tmp_path / "phrase_1.png").write_bytes(b"mine")
    write_attention(planted, squares[0].prompt, tmp_path, heads=2)
    (tmp_path / "phrase_07_3x4.png").write_bytes(b"of an earlier run")
    report = write_attention(planted, squares[0].prompt, tmp_path, heads=2)
    files = {Path(shown["file"]).name for shown in report["phrases"]}
    assert names(tmp_path) == {*files, "attention.json", "phrase_1.png"}


def test_a_folder_whose_files_cannot_be_removed_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "grounding.json").mkdir()
    with pytest.raises(OutputError, match="cannot be written to"):
        write_grounding(grounding(1), tmp_path, image_id=1)
