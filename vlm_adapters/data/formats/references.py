"""Referring expressions for hard scenes: by attributes, relations, counts and clauses, and of what is not there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES
from vlm_adapters.data.formats.things import (
    NUMBERS,
    OCCLUDED,
    OTHER_THINGS,
    RELATIONS,
    TEXTURES,
    Name,
    Reference,
    Thing,
    plural_of,
    related,
    unique_name,
)

ABSENT_CHANCE = 0.28
"""Of every reference but the first that is found, which is there."""
LARGER = 1.3
"""How many times as large as all others the largest shape must be to be called so."""
ATTEMPTS = 20
"""How often a way to refer is tried, with another draw each time, before another way is drawn."""

T = TypeVar("T")
Rng = np.random.Generator
Things = Sequence[Thing]


def refer(rng: Rng, things: Things, count: int) -> list[Reference]:
    """Refer to things of a scene in different ways, and to some that are not there; at least one is there.

    Args:
        rng: Generator of the choices.
        things: What is in the scene.
        count: Number of references; fewer where no more are found.
    """
    found: list[Reference] = []
    for attempt in itertools.count():
        if len(found) == count or (found and attempt >= 10 * count):
            break
        absent = any(reference.things for reference in found) and rng.random() < ABSENT_CHANCE
        reference = refer_to_absent(rng, things) if absent else refer_to_present(rng, things)
        if reference and reference.words not in {other.words for other in found}:
            found.append(reference)
    order = rng.permutation(len(found))
    return [found[index] for index in order]


def refer_to_present(rng: Rng, things: Things) -> Reference | None:
    """Refer to one or several things of a scene; None if the way that was drawn finds nothing."""
    ways = (by_name, by_relation, by_size, by_number, by_clauses)
    return _tried(_drawn(rng, ways, (0.3, 0.26, 0.12, 0.14, 0.18)), rng, things)


def by_name(rng: Rng, things: Things) -> Reference | None:
    """Refer to a thing by attributes that no other has."""
    index = int(rng.integers(len(things)))
    if (name := unique_name(rng, things, index)) is None:
        return None
    thing, others = things[index], [other for other in things if other is not things[index]]
    colours, shapes = (
        {id(other) for other in others if getattr(other, attribute) == getattr(thing, attribute)}
        for attribute in ("colour", "shape")
    )
    kinds = ["attributes"]
    if name.colour and name.shape and colours and shapes and len(colours | shapes) >= 3:
        kinds.append("distractors")
    if name.texture:
        kinds.append("texture")
    return _to_one(f"{_drawn(rng, ('a', 'the'))} {name.words()}", index, things, kinds)


def by_relation(rng: Rng, things: Things) -> Reference | None:
    """Refer to a thing by where it is from another one."""
    anchor = int(rng.integers(len(things)))
    relation = _drawn(rng, tuple(RELATIONS))
    others = [index for index in range(len(things)) if index != anchor]
    index = int(rng.choice(others))
    name = _drawn(rng, (Name(), *(Name.of(things[index], attributes) for attributes in (["shape"], ["colour"]))))
    anchor_name = unique_name(rng, things, anchor)
    if anchor_name is None:
        return None
    matching = [other for other in others if name.matches(things[other])]
    if related(things, matching, anchor, relation) != [index]:
        return None
    return _to_one(f"the {name.words('one')} {relation} the {anchor_name.words()}", index, things, ["relation"])


def by_size(rng: Rng, things: Things) -> Reference | None:
    """Refer to the largest or the smallest of some things."""
    name = _drawn(rng, (Name(), *(Name.of(thing, [a]) for thing in things for a in ("shape", "colour"))))
    matching = [index for index, thing in enumerate(things) if name.matches(thing)]
    if len(matching) < 2:
        return None
    by_radius = sorted(matching, key=lambda index: things[index].radius)
    word, index, next_one = (
        ("largest", by_radius[-1], by_radius[-2]) if rng.random() < 0.5 else ("smallest", by_radius[0], by_radius[1])
    )
    ratio = things[index].radius / things[next_one].radius
    if max(ratio, 1 / ratio) < LARGER:
        return None
    return _to_one(f"the {word} {name.words()}", index, things, ["relation"])


def by_number(rng: Rng, things: Things) -> Reference | None:
    """Refer to several things together."""
    thing = things[int(rng.integers(len(things)))]
    attributes = _drawn(rng, (["shape"], ["colour"], ["colour", "shape"], ["texture", "shape"], ["texture", "colour"]))
    name = Name.of(thing, attributes)
    matching = tuple(index for index, other in enumerate(things) if name.matches(other))
    if len(matching) not in NUMBERS or not (name.colour or name.texture or name.shape):
        return None
    words = [f"the {NUMBERS[len(matching)]}", "all the", *(["both"] if len(matching) == 2 else [])]
    plural = name.words().replace(name.shape or "shape", plural_of(name.shape or "shape"))
    return Reference(f"{_drawn(rng, tuple(words))} {plural}", matching, ("plural",))


def by_clauses(rng: Rng, things: Things) -> Reference | None:
    """Refer to a thing by two clauses, both of which are needed."""
    index = int(rng.integers(len(things)))
    thing, others = things[index], [other for other in range(len(things)) if other != index]
    anchor, relation = int(rng.choice(others)), _drawn(rng, tuple(RELATIONS))
    anchor_name = unique_name(rng, things, anchor)
    clauses: list[tuple[str, set[int]]] = []
    for attribute, words in (("colour", "is {}"), ("texture", "is {}"), ("dot", "has a {} dot")):
        if value := getattr(thing, attribute):
            having = {i for i, other in enumerate(things) if getattr(other, attribute) == value}
            clauses.append((words.format(value), having))
    of_anchor = set(related(things, range(len(things)), anchor, relation) or ())
    if anchor_name and index in of_anchor:
        clauses.append((f"is {relation} the {anchor_name.words()}", of_anchor))
    noun = _drawn(rng, (thing.shape, "shape"))
    of_noun = {i for i, other in enumerate(things) if noun in ("shape", other.shape)}
    pairs = [
        (first, second)
        for first, second in itertools.combinations(clauses, 2)
        if of_noun & first[1] & second[1] == {index} and min(len(of_noun & one[1]) for one in (first, second)) > 1
    ]
    if not pairs:
        return None
    (first, _), (second, _) = pairs[int(rng.integers(len(pairs)))]
    return _to_one(f"the {noun} that {first} and {second}", index, things, ["two clauses"])


def refer_to_absent(rng: Rng, things: Things) -> Reference | None:
    """Refer to something that is not there; None if the way that was drawn finds nothing."""
    ways = (_wrong_attribute, _wrong_relation, _nothing_alike)
    return _tried(_drawn(rng, ways, (0.45, 0.3, 0.25)), rng, things)


def _wrong_attribute(rng: Rng, things: Things) -> Reference | None:
    thing = things[int(rng.integers(len(things)))]
    name = Name.of(thing, ["colour", "shape", *(a for a in ("texture", "dot") if rng.random() < 0.4)])
    absence = _drawn(rng, ("wrong colour", "wrong shape"))
    if absence == "wrong colour":
        name = replace(name, colour=_drawn(rng, tuple(COLOURS)))
    else:
        name = replace(name, shape=_drawn(rng, SHAPES))
    if any(replace(name, texture="", dot="").matches(other) for other in things):
        return None
    return Reference(_any_wording(rng, name), (), ("absent", absence))


def _any_wording(rng: Rng, name: Name) -> str:
    """Words for something that is not there, of every form that present things are referred to by."""
    form = rng.random()
    if form < 0.6:
        return f"{_drawn(rng, ('a', 'the'))} {name.words()}"
    if form < 0.75:
        return f"the {_drawn(rng, ('largest', 'smallest'))} {name.words()}"
    if form < 0.9:
        number = _drawn(rng, ("both", "all the", *(f"the {word}" for word in NUMBERS.values())))
        return f"{number} {name.words().replace(name.shape, plural_of(name.shape))}"
    second = f"has a {_drawn(rng, tuple(DOTS))} dot" if rng.random() < 0.5 else f"is {_drawn(rng, TEXTURES)}"
    return f"the {name.shape} that is {name.colour} and {second}"


def _wrong_relation(rng: Rng, things: Things) -> Reference | None:
    """A relation that none of the things that are named has, although they and the other one are there."""
    anchor, relation = int(rng.integers(len(things))), _drawn(rng, tuple(RELATIONS))
    others = [index for index in range(len(things)) if index != anchor]
    name = Name.of(things[int(rng.choice(others))], _drawn(rng, (["shape"], ["colour"])))
    anchor_name = unique_name(rng, things, anchor)
    matching = [index for index in others if name.matches(things[index])]
    if anchor_name is None or related(things, matching, anchor, relation) != []:
        return None
    words = f"the {name.words('one')} {relation} the {anchor_name.words()}"
    return Reference(words, (), ("absent", "wrong relation"))


def _nothing_alike(rng: Rng, things: Things) -> Reference | None:
    """A thing of another kind, or a shape in a scene that has neither its colour nor its shape."""
    if rng.random() < 0.5:
        name, noun = Name(_drawn(rng, ("", *COLOURS)), "", "", _drawn(rng, ("", "", *DOTS))), _drawn(rng, OTHER_THINGS)
    else:
        name, noun = Name(_drawn(rng, tuple(COLOURS)), "", _drawn(rng, SHAPES)), ""
        if any(name.colour == other.colour or name.shape == other.shape for other in things):
            return None
    return Reference(f"{_drawn(rng, ('a', 'the'))} {name.words(noun)}", (), ("absent", "nothing alike"))


def _tried(way: Callable[[Rng, Things], Reference | None], rng: Rng, things: Things) -> Reference | None:
    return next(filter(None, (way(rng, things) for _ in range(ATTEMPTS))), None)


def _to_one(words: str, index: int, things: Things, kinds: Sequence[str]) -> Reference:
    thing = things[index]
    of_thing = [tag for tag, holds in (("occluded", thing.visible < OCCLUDED), ("small", thing.small)) if holds]
    return Reference(words, (index,), (*kinds, *of_thing))


def _drawn(rng: Rng, choices: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return choices[int(rng.choice(len(choices), p=weights))]
