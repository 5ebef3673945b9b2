"""Hard scenes: what a phrase says is read again from its words, and compared with the pixels that it is given."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm_adapters.data.formats.hard_scenes import LEAST_VISIBLE, HardScene, HardScenes
from vlm_adapters.data.formats.scenes import COLOURS, SHAPES
from vlm_adapters.data.formats.things import ABSENCES, KINDS, OTHER_THINGS, TEXTURES, Thing
from vlm_adapters.data.sample import Sample

SET = HardScenes(150, seed=7)
SCENES = [(SET.scene(index), SET[index]) for index in range(len(SET))]
PLURALS = {"circles": "circle", "squares": "square", "triangles": "triangle", "stars": "star", "crosses": "cross"}
NUMBERS = {"two": 2, "three": 3, "four": 4}
DIRECTIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def named(words: str, things: list[Thing]) -> list[Thing]:
    """The things that have every colour, shape, texture and dot of some words, read one word after the other."""
    before, _, dot = words.partition(" with a ")
    found = [thing for thing in things if not dot or thing.dot == dot.split()[0]]
    for word in before.split():
        single = PLURALS.get(word, word)
        if word in COLOURS:
            found = [thing for thing in found if thing.colour == word]
        elif word in TEXTURES:
            found = [thing for thing in found if thing.texture == word]
        elif single in SHAPES:
            found = [thing for thing in found if thing.shape == single]
    return found


def on_side(thing: Thing, other: Thing, relation: str) -> bool:
    axis, sign = DIRECTIONS[relation]
    along = sign * (thing.centre[axis] - other.centre[axis])
    return along > abs(thing.centre[1 - axis] - other.centre[1 - axis])


def meant(words: str, things: list[Thing]) -> list[Thing]:
    """What a phrase means, found anew from its words alone."""
    if match := re.fullmatch(r"the (\w+) that (.*?) and (.*)", words):
        return [thing for thing in named(match[1], things) if all(holds(match[k], thing, things) for k in (2, 3))]
    if match := re.fullmatch(rf"the (.*) ({'|'.join(DIRECTIONS)}) the (.*)", words):
        (other,) = named(match[3], things)
        return [t for t in named(match[1], things) if t is not other and on_side(t, other, match[2])]
    if match := re.fullmatch(r"the (largest|smallest) (.*)", words):
        order = sorted(named(match[2], things), key=lambda thing: thing.radius)
        return order[-1:] if match[1] == "largest" else order[:1]
    if any(re.search(rf"\b{noun}\b", words) for noun in OTHER_THINGS):
        return []
    return named(words, things)


def holds(clause: str, thing: Thing, things: list[Thing]) -> bool:
    for relation in DIRECTIONS:
        if clause.startswith(f"is {relation} the "):
            (other,) = named(clause.removeprefix(f"is {relation} the "), things)
            return thing is not other and on_side(thing, other, relation)
    if clause.startswith("has a "):
        return thing.dot == clause.split()[2]
    return clause.removeprefix("is ") in (thing.colour, thing.texture)


def masks_of(scene: HardScene, things: list[Thing]) -> NDArray[np.bool_]:
    indices = [index for index, thing in enumerate(scene.things) if any(thing is other for other in things)]
    return np.asarray(scene.masks[indices].any(axis=0))


def test_a_phrase_has_the_mask_of_what_its_words_mean() -> None:
    for scene, sample in SCENES:
        for phrase, mask in zip(sample.phrases, sample.masks, strict=True):
            expected = masks_of(scene, meant(phrase.text, list(scene.things)))
            assert np.array_equal(mask, expected), (sample.id, phrase.text)


def test_a_phrase_without_a_number_means_one_thing_or_none() -> None:
    for scene, sample in SCENES:
        for phrase, tags in zip(sample.phrases, sample.phrase_tags, strict=True):
            count = len(meant(phrase.text, list(scene.things)))
            numbers = [number for word, number in NUMBERS.items() if f"the {word} " in phrase.text]
            assert count in (numbers or [2, 3, 4]) if "plural" in tags else count == ("absent" not in tags)


def test_the_spans_of_phrases_are_their_words() -> None:
    for _, sample in SCENES:
        assert all(sample.text[phrase.start : phrase.end] == phrase.text for phrase in sample.phrases)


def test_what_is_absent_has_an_empty_mask_and_says_why() -> None:
    for _, sample in SCENES:
        for tags, mask in zip(sample.phrase_tags, sample.masks, strict=True):
            assert mask.any() == ("absent" not in tags)
            assert ("absent" in tags) == bool(set(tags) & set(ABSENCES))


def test_all_kinds_occur_and_no_others() -> None:
    tags = {tag for _, sample in SCENES for of_phrase in sample.phrase_tags for tag in of_phrase}
    assert tags == {*KINDS, *ABSENCES}


def test_between_a_tenth_and_a_third_of_the_phrases_is_absent() -> None:
    absent = [not mask.any() for _, sample in SCENES for mask in sample.masks]
    assert 0.1 < np.mean(absent) < 0.34


def test_shapes_never_share_a_pixel_and_enough_of_each_is_seen() -> None:
    for scene, _ in SCENES:
        assert scene.masks.sum(axis=0).max() <= 1
        assert all(thing.visible >= LEAST_VISIBLE for thing in scene.things)


def test_most_pixels_of_an_even_shape_have_its_colour() -> None:
    for scene, _ in SCENES:
        pixels = np.asarray(scene.image).astype(float)
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            if not thing.texture:
                middle = np.median(pixels[mask], axis=0)
                assert min(COLOURS, key=lambda name: float(np.linalg.norm(middle - COLOURS[name]))) == thing.colour


def same(first: Sample, second: Sample) -> bool:
    images = first.image.tobytes() == second.image.tobytes()
    return images and first.text == second.text and np.array_equal(first.masks, second.masks)


def test_a_sample_depends_on_seed_and_place_alone() -> None:
    assert same(HardScenes(1, seed=3, first=9)[0], HardScenes(100, seed=3)[9])
    assert not same(HardScenes(1, seed=4)[0], HardScenes(1, seed=3)[0])


@pytest.mark.parametrize("seed", [1, 2])
def test_every_sample_has_a_phrase_that_is_there(seed: int) -> None:
    assert all(sample.masks.any() for sample in HardScenes(60, seed=seed))
