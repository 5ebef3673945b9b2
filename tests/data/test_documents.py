"""JSON and YAML of strangers: one rule for encodings, and bounded work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.data.documents import parse_yaml, read_json, read_yaml, usable_text
from vlm_adapters.data.formats.json_lines import JsonLines
from vlm_adapters.data.open import open_dataset
from vlm_adapters.data.validated import BaseModel
from vlm_adapters.errors import DataError, RecipeError
from vlm_adapters.limits import Limits

CONTENT = {"text": "Hünd 😀", "numbers": [1, 2.5, None, True]}


class Anything(BaseModel):
    text: str
    numbers: list[object]


def read_lines(path: Path) -> object:
    lines = JsonLines(path, Anything)
    found, problems = lines.usable(lambda _, __: None)
    assert not problems
    return lines.read(found[0]).model_dump()


READERS: dict[str, Callable[[Path], object]] = {"JSON": read_json, "YAML": read_yaml, "JSON lines": read_lines}


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_takes_utf_8_with_or_without_a_mark(kind: str, tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a").write_text(json.dumps(CONTENT, ensure_ascii=False), encoding=encoding)
        assert READERS[kind](tmp_path / "a") == CONTENT


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("kind", READERS)
def test_every_reader_names_another_encoding(kind: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(json.dumps(CONTENT).encode(encoding))
    with pytest.raises(DataError, match=r"it is UTF-(16|32).*, not UTF-8; save it as UTF-8"):
        READERS[kind](tmp_path / "a")


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("text", ["[" * 90_000, '{"a":' * 10_000, "[" * 900 + "]" * 900])
def test_every_reader_refuses_brackets_without_end(kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(text)
    if kind == "JSON" and text.endswith("]"):
        read_json(tmp_path / "a")  # that deep is read
    elif kind == "JSON lines":
        assert len(JsonLines(tmp_path / "a", Anything).usable(lambda _, __: None)[1]) == 1
    else:
        with pytest.raises(DataError, match="nested"):
            READERS[kind](tmp_path / "a")


def test_limits_of_a_json_file_can_be_raised(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps([[]] * 100))
    assert read_json(tmp_path / "a", Limits(max_containers=101)) == [[]] * 100
    with pytest.raises(DataError, match="it holds 101 lists and objects; at most 100 are read"):
        read_json(tmp_path / "a", Limits(max_containers=100))
    with pytest.raises(DataError, match="it is longer than 399 bytes"):
        read_json(tmp_path / "a", Limits(max_file_bytes=399))


@given(st.integers(2, 12), st.integers(3, 12), st.sampled_from(["[{}]", "{{x: [{}]}}", "{{<<: [{}]}}"]))
def test_anchors_are_counted_wherever_they_are_repeated(width: int, depth: int, form: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} " + form.format(", ".join([f"*a{n - 1}"] * width)) for n in range(1, depth)]
    text = "\n".join(lines)
    start = time.process_time()
    if width ** (depth - 1) > 20_000:
        with pytest.raises(RecipeError, match=r"The set cannot be read as YAML: it holds more than 20,000 values"):
            parse_yaml(text, "The set", error=RecipeError)
    elif width**depth < 2_000:
        assert isinstance(parse_yaml(text, "The set"), dict)
    assert time.process_time() - start < 5


def test_anchors_of_people_are_read() -> None:
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: *base\n"
    assert parse_yaml(text, "x") == {"base": {"a": 1, "b": 2}, "one": {"a": 1, "b": 3}, "two": {"a": 1, "b": 2}}


def test_a_value_that_holds_itself_is_refused() -> None:
    for text in ("a: &a [*a]", "&a {b: {c: *a}}"):
        with pytest.raises(DataError, match="a value holds itself"):
            parse_yaml(text, "x")


@given(st.text("[]{}:,&*!|>-?#%@`'\" \n\tab019.~<=", max_size=60))
def test_any_text_is_read_or_a_typed_error(text: str) -> None:
    message = ""
    try:
        parse_yaml(text, "x")
    except DataError as error:
        message = str(error)
    assert len(message) < 600
    assert "\n" not in message


def test_half_a_character_is_an_error_of_its_text() -> None:
    with pytest.raises(DataError, match=r"The text 'a dog \\ud83d' holds half of a character"):
        usable_text("a dog \ud83d", Limits())
    assert usable_text("a dog 😀", Limits()) == "a dog 😀"


def test_a_long_text_is_an_error_unless_it_is_allowed() -> None:
    with pytest.raises(DataError, match=r"300,000 characters; at most 200,000 are read\. .* Limits\(max_text=\.\.\.\)"):
        usable_text("x" * 300_000, Limits())
    assert usable_text("x" * 300_000, Limits(max_text=300_000)) == "x" * 300_000


def test_a_set_that_leaves_out_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").touch()
    (tmp_path / "a.yaml").write_text(f"kind: folder\npath: {tmp_path}\nwithout: {tmp_path}/a.yaml\n")
    with pytest.raises(DataError, match="More than 100 data sets belong to one, by `without`"):
        open_dataset(tmp_path / "a.yaml")
