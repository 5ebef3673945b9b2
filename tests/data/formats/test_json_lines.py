"""Files with an object per line: bounded lines, bounded problems, and limits that can be raised."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vlm_adapters.data import open_dataset, open_skipping
from vlm_adapters.errors import DataError
from vlm_adapters.limits import Limits

PHRASE = {"span": [0, 5], "mask": {"size": [4, 6], "counts": "h0"}}


def write(folder: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")
    return folder


def line(phrases: int = 1, **changes: object) -> dict[str, object]:
    return {"id": "a", "image": "a.png", "image_id": "1", "text": "a dog", "phrases": [PHRASE] * phrases} | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (line(1_001), "1,001 masks of 1 x 1 pixels are too many for one sample: at most 1,000"),
        (line(100_000), "The line holds about 500,004 values; at most 100,000 are read"),
        ('{"phrases": [' + "0," * 200_000 + "0]}", "The line holds about 200,001 values"),
        ("{" + ",".join(f'"{n}":0' for n in range(150_000)) + "}", "The line holds about 150,000 values"),
        (line(id="x" * 20_000_000), r"samples\.jsonl:1: The line is longer than 16,777,216 bytes"),
    ],
    ids=range(5),
)
def test_a_line_beyond_the_limits_is_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(write(tmp_path, content))
    assert len(str(caught.value)) < 500


def test_limits_of_lines_are_raised_by_argument(tmp_path: Path) -> None:
    write(tmp_path, line(1_200))
    assert len(open_dataset(tmp_path, limits=Limits(max_phrases=2_000))) == 1
    assert len(open_skipping(tmp_path, limits=Limits(max_phrases=2_000))) == 1
    with pytest.raises(DataError, match=r"Limits\(max_phrases=\.\.\., max_mask_pixels=\.\.\.\) to open_dataset"):
        open_dataset(tmp_path)


def test_a_file_of_another_kind_is_given_up(tmp_path: Path) -> None:
    write(tmp_path, *["{}"] * 10_001)
    with pytest.raises(DataError, match=r"more than 10,000 broken entries, so it is probably of another kind\."):
        open_skipping(tmp_path)
    assert len(open_skipping(tmp_path, limits=Limits(max_problems=20_000)).problems) == 10_001


def test_endless_lines_are_given_up(tmp_path: Path) -> None:
    write(tmp_path, *[""] * 101)
    with pytest.raises(DataError, match=r"has more than 100 lines\. Divide it"):
        open_skipping(tmp_path, limits=Limits(max_lines=100))
    assert len(open_skipping(tmp_path, limits=Limits(max_lines=101))) == 0


def test_a_file_that_becomes_a_pipe_is_an_error(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, line()))
    (tmp_path / "samples.jsonl").unlink()
    os.mkfifo(tmp_path / "samples.jsonl")
    with pytest.raises(DataError, match="it is a named pipe, not a regular file"):
        dataset.annotation(0)


def test_the_first_of_marked_lines_is_read(tmp_path: Path) -> None:
    write(tmp_path, line(), line(id="b"))
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    dataset = open_dataset(tmp_path)
    assert [dataset.annotation(index).id for index in range(2)] == ["a", "b"]
