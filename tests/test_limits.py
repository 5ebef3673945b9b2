"""What strangers wrote is shown in bounded time and length."""

from __future__ import annotations

from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.limits import Limits, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(JSON)
def test_any_value_is_shown_in_one_short_printable_line(value: object) -> None:
    text = shown(value)
    assert len(text) <= 600
    assert text.isprintable()


def test_what_explodes_when_it_is_written_out_is_shown_at_once() -> None:
    nested: list[object] = ["x" * 50] * 10
    for _ in range(20):
        nested = [nested] * 10
    loop: list[object] = []
    loop.append(loop)
    began = monotonic()
    texts = [shown(value) for value in (nested, loop, 10**100_000, {"id": -(10**5000)}, "a" * 10**7, [b"b" * 10**7])]
    assert monotonic() - began < 1
    assert max(len(text) for text in texts) < 200
    assert texts[2] == "<an integer of 332193 bits>"


def test_a_short_value_is_shown_as_python_writes_it() -> None:
    for value in ("a\x1b[31m\n", 12, -3.5, None, True, [1, "b"], {"a": (2,)}, b"\x00"):
        assert shown(value) == repr(value)


@pytest.mark.parametrize("limit", [{"max_pixels": 0}, {"max_aspect": 0.5}, {"max_aspect": float("nan")}])
def test_a_limit_that_allows_nothing_is_refused(limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"allows nothing. Give 1 or more"):
        Limits(**limit)  # type: ignore[arg-type]
