"""Phrases that cannot be found are errors before any adapter sees them, so these are tests and not checks."""

from __future__ import annotations

import pytest

from vlm_adapters.errors import PhraseError
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.testing.support import TEXT, image


@pytest.mark.parametrize(
    "phrase",
    [
        pytest.param("a purple cow", id="missing"),
        pytest.param("A Red Circle", id="other letters"),
        pytest.param("a", id="ambiguous"),
        pytest.param("", id="empty"),
        pytest.param(" \t\n", id="blank"),
        pytest.param((0, 0), id="empty span"),
        pytest.param((5, 3), id="span turned round"),
        pytest.param((-3, 4), id="span before the text"),
        pytest.param((0, len(TEXT) + 1), id="span beyond the text"),
        pytest.param((1, 2), id="blank span"),
        pytest.param(Phrase("a blue star", 0, 11), id="words elsewhere"),
    ],
)
def test_phrase_that_is_not_there_is_an_error_that_shows_the_text(phrase: str | tuple[int, int] | Phrase) -> None:
    with pytest.raises(PhraseError) as raised:
        Prompt.describe(image((32, 32)), TEXT, [phrase])
    assert TEXT in str(raised.value)


def test_a_string_and_its_span_are_one_phrase() -> None:
    by_string = Prompt.describe(image((32, 32)), TEXT, [" a blue star "])
    by_span = Prompt.describe(image((32, 32)), TEXT, [(14, 27)])
    assert by_string.phrases == by_span.phrases == (Phrase("a blue star", 15, 26),)
