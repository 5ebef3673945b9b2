"""The shapes of hard scenes, the attributes that name them, and how they are related."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from vlm_adapters.data.formats.scenes import SceneObject

TEXTURES = ("striped", "shaded")
"""Words of textures; a shape without one has an even colour."""

KINDS = ("attributes", "distractors", "texture", "relation", "plural", "two clauses", "occluded", "small", "absent")
"""Tags of phrases. `distractors`: three or more other shapes share its colour or its shape, and some share each."""

ABSENCES = ("wrong colour", "wrong shape", "wrong relation", "nothing alike")
"""The second tag of a phrase that is not in the image."""

SMALL = 0.075
"""A shape is small if its radius is below this share of the image's shorter side."""

OCCLUDED = 0.85
"""A shape is occluded if less than this share of it can be seen."""

RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Relations, and the direction `(x, y)` in which the thing is from the other one."""

NUMBERS = {2: "two", 3: "three", 4: "four"}

_NOUNS = """
dog cat horse bird fish cow sheep bear mouse lion man woman child boy girl face hand house door window roof road
bridge car bus train bicycle boat plane wheel tree flower leaf grass apple banana orange cake bread cup bottle plate
fork spoon knife bowl table chair bed lamp book pen clock key phone screen bag hat shoe shirt kite guitar piano moon
sun cloud mountain river sea stone fire sky hill heart arrow hexagon line letter number flag
"""
OTHER_THINGS = tuple(_NOUNS.split())
"""Nouns of things that are never in a scene."""


@dataclass(frozen=True)
class Thing(SceneObject):
    """A shape of a hard scene.

    Attributes:
        texture: One of `TEXTURES`, or `""` for none.
        small: Whether it is small (`SMALL`).
        visible: Share of it that can be seen.
    """

    texture: str = ""
    small: bool = False
    visible: float = 1.0


@dataclass(frozen=True)
class Name:
    """Attributes that a phrase names; an empty one is not named.

    Attributes:
        colour: A key of `COLOURS`.
        texture: One of `TEXTURES`.
        shape: One of `SHAPES`.
        dot: A key of `DOTS`.
    """

    colour: str = ""
    texture: str = ""
    shape: str = ""
    dot: str = ""

    @classmethod
    def of(cls, thing: Thing, attributes: Sequence[str]) -> Name:
        """Name some attributes of a thing."""
        return cls(**{attribute: getattr(thing, attribute) for attribute in attributes})

    def matches(self, thing: Thing) -> bool:
        """Whether a thing has all attributes that are named."""
        return (
            self.colour in ("", thing.colour)
            and self.texture in ("", thing.texture)
            and self.shape in ("", thing.shape)
            and self.dot in ("", thing.dot)
        )

    def words(self, noun: str = "shape") -> str:
        """`"striped red circle with a white dot"`, without an article."""
        text = " ".join(word for word in (self.texture, self.colour, self.shape or noun) if word)
        return f"{text} with a {self.dot} dot" if self.dot else text


@dataclass(frozen=True)
class Reference:
    """Words that refer to things of a scene.

    Attributes:
        words: The phrase.
        things: Indices of what it refers to; empty if it is not there.
        kinds: Its tags, of `KINDS` and `ABSENCES`.
    """

    words: str
    things: tuple[int, ...]
    kinds: tuple[str, ...]


def unique_name(rng: np.random.Generator, things: Sequence[Thing], index: int) -> Name | None:
    """Choose attributes of a thing that no other has together; None if another has all of them."""
    unique = _unique_names(tuple(things), index)
    return unique[int(rng.integers(len(unique)))] if unique else None


@lru_cache(maxsize=256)
def _unique_names(things: tuple[Thing, ...], index: int) -> list[Name]:
    thing = things[index]
    optional = [attribute for attribute in ("colour", "texture", "dot") if getattr(thing, attribute)]
    names = [
        Name.of(thing, [*some, *shape])
        for count in range(len(optional) + 1)
        for some in combinations(optional, count)
        for shape in ((["shape"],) if count == 0 else (["shape"], ["shape"], []))
    ]
    return [name for name in names if [other for other in things if name.matches(other)] == [thing]]


def related(things: Sequence[Thing], candidates: Sequence[int], anchor: int, relation: str) -> list[int] | None:
    """Those of some things that are in a relation to another one; None if of one it is not clear."""
    found = []
    (x0, y0), (ahead_x, ahead_y) = things[anchor].centre, RELATIONS[relation]
    for index in candidates:
        if index == anchor:
            continue
        x, y = things[index].centre
        ahead, aside = (x - x0) * ahead_x + (y - y0) * ahead_y, abs((x - x0) * ahead_y) + abs((y - y0) * ahead_x)
        if ahead > 0 and 0.7 < ahead / max(aside, 1e-9) < 1.4:
            return None
        if ahead > aside:
            found.append(index)
    return found


def plural_of(noun: str) -> str:
    """`"crosses"` of `"cross"`."""
    return noun + ("es" if noun.endswith("s") else "s")
