"""Phrases that cannot be found are errors before any adapter sees them, so these are tests and not checks."""

from __future__ import annotations

import pytest

from vlm_adapters.errors import PhraseError
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.testing.support import TEXT, image


def test_a_phrase_that_is_not_there_is_an_error_that_shows_the_text(subtests: pytest.Subtests) -> None:
    cases: dict[str, str | tuple[int, int] | Phrase] = {
        "missing": "a purple cow",
        "other letters": "A Red Circle",
        "ambiguous": "a",
        "empty": "",
        "blank": " \t\n",
        "empty span": (0, 0),
        "span turned round": (5, 3),
        "span before the text": (-3, 4),
        "span beyond the text": (0, len(TEXT) + 1),
        "blank span": (1, 2),
        "words elsewhere": Phrase("a blue star", 0, 11),
    }
    for name, phrase in cases.items():
        with subtests.test(name):
            with pytest.raises(PhraseError) as raised:
                Prompt.describe(image((32, 32)), TEXT, [phrase])
            assert TEXT in str(raised.value)


def test_a_string_and_its_span_are_one_phrase() -> None:
    by_string = Prompt.describe(image((32, 32)), TEXT, [" a blue star "])
    by_span = Prompt.describe(image((32, 32)), TEXT, [(14, 27)])
    assert by_string.phrases == by_span.phrases == (Phrase("a blue star", 15, 26),)
