"""Data sets as one line of text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.data.uri import format_uri, parse_uri
from vlm_adapters.errors import DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.from_regex(r"[a-z_][a-z_0-9]*", fullmatch=True)


@settings(deadline=None)  # on a busy machine a thread may wait
@given(st.dictionaries(KEYS, TEXTS | st.lists(TEXTS)))
def test_what_is_written_is_read_again(keys: dict[str, str | list[str]]) -> None:
    assert parse_uri(format_uri("kind", keys)) == ("kind", keys)


def test_a_line_reads_as_people_write_it() -> None:
    assert parse_uri("refcoco:annotations=/data/refs=1,split=val,limit=5") == (
        "refcoco",
        {"annotations": "/data/refs=1", "split": "val", "limit": "5"},
    )
    assert parse_uri('folder:path="a, b",without=["scenes:count=1,seed=2", "c"]') == (
        "folder",
        {"path": "a, b", "without": ["scenes:count=1,seed=2", "c"]},
    )
    assert parse_uri("scenes:") == ("scenes", {})


def test_only_what_needs_quotes_has_them() -> None:
    written = format_uri("folder", {"path": "/a b/c=d", "limit": 3, "seed": None, "without": ["x:y=1,z=2"]})
    assert written == 'folder:path=/a b/c=d,limit=3,without=["x:y=1,z=2"]'
    assert format_uri("folder", {"path": "a,b"}) == 'folder:path="a,b"'


def test_a_line_with_another_syntax_is_refused_with_the_place_of_the_mistake(subtests: pytest.Subtests) -> None:
    cases = [
        ("scenes:count", "has 'count' where a key and '=' belong"),
        ("scenes:count=1,,seed=2", "has ',seed' where a key and '=' belong"),
        ("scenes:count=1,count=2", "has the key 'count' twice"),
        ("scenes:count=1,", "ends with a comma"),
        ('folder:path="a', "quotes or brackets that do not close"),
        ('folder:path="a"b', "has 'b' after a value in quotes"),
    ]
    for uri, message in cases:
        with subtests.test(uri=uri):
            with pytest.raises(
                DataError, match=r"Write kind:key=value,key=value, and a value with commas in"
            ) as caught:
                parse_uri(uri)
            assert message in str(caught.value)
