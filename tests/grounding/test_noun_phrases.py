"""The rule that finds phrases in an English answer: what it takes, where it cuts, and what it leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.grounding import noun_phrases

CASES = {
    "a cat on the mat": ["a cat", "the mat"],
    "A man holding two red kites stands left of the white house.": ["A man", "two red kites", "the white house"],
    "a wooden table covered with a white cloth": ["a wooden table", "a white cloth"],
    "A dog runs across the grass": ["A dog", "the grass"],
    "three cats and a dog sleeping on the couch": ["three cats", "a dog", "the couch"],
    "a group of people walking down a busy street": ["a group of people", "a busy street"],
    "a dining table near a tall building": ["a dining table", "a tall building"],
    "The man's red shirt has white stripes.": ["The man's red shirt", "white stripes"],
    "A man that holds an umbrella": ["A man", "an umbrella"],
    "that cat looks at the bird": ["that cat", "the bird"],
    "all the apples, both his hands": ["all the apples", "both his hands"],
    "a blue star left of the green square": ["a blue star", "the green square"],
    "a city bus next to a glass": ["a city bus", "a glass"],
    "People are skiing, and 2 dogs watch.": ["People", "2 dogs watch"],
    "Blue cross.": ["Blue cross"],
    "L\u2019homme, the woman\u2019s hat": ["the woman\u2019s hat"],
}
"""What is documented, and what it gets wrong: a verb that is on no list stays."""


@pytest.mark.parametrize("text", CASES)
def test_phrases_of_a_sentence(text: str) -> None:
    assert [phrase.text for phrase in noun_phrases(text)] == CASES[text]


@pytest.mark.parametrize(
    "text",
    ["", "Yes.", "No, it is not.", "The image", "There is no cat in this picture.", "It is red.", "two", "on the left"],
)
def test_nothing_is_named(text: str) -> None:
    assert noun_phrases(text) == []


def test_all_shapes_of_captions_are_found() -> None:
    for scene in Scenes(40, seed=HELD_OUT_SEED):
        found = {phrase.span for phrase in noun_phrases(scene.text)}
        shapes = [(phrase.start, phrase.start + len(phrase.text.split(" with ")[0])) for phrase in scene.phrases]
        assert set(shapes) <= found


@given(st.text(max_size=60) | st.lists(st.sampled_from(" ".join(CASES).split()), max_size=12).map(" ".join))
def test_phrases_of_any_text_stand_in_it_one_after_the_other(text: str) -> None:
    end = 0
    for phrase in noun_phrases(text):
        assert text[phrase.start : phrase.end] == phrase.text
        assert end <= phrase.start < phrase.end
        end = phrase.end
