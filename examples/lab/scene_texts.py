"""What is said about a scene in training: descriptions, questions and answers, and what every phrase refers to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from vlm_adapters.data.formats.references import by_relation, refer, refer_to_present
from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES
from vlm_adapters.data.formats.things import (
    NUMBERS,
    RELATIONS,
    TEXTURES,
    Name,
    Reference,
    Thing,
    plural_of,
    related,
    unique_name,
)
from vlm_adapters.prompt import DESCRIBE_QUESTION

T = TypeVar("T")
Rng = np.random.Generator
Things = Sequence[Thing]
RELATION = re.compile(r" (left of|right of|above|below) the (.+?)(?= and |$)")
PLURALS = {plural_of(noun): noun for noun in (*SHAPES, "shape")}
KEPT_NOTHING = 0.15
"""Share of the questions about an empty side that are asked: most sides are empty, and "nothing" teaches little."""
COUNTS = {0: "none", 1: "one", **NUMBERS, 5: "five", 6: "six", 7: "seven", 8: "eight"}


@dataclass(frozen=True)
class Look:
    """What the token that ends at a character of a text refers to.

    Attributes:
        end: Where it ends in the text.
        things: Indices of the things; empty if they are not there.
        anchor: The thing that a relation starts from, or None.
        final: Whether the phrase ends here.
        begin: Where the phrase begins.
    """

    end: int
    things: tuple[int, ...]
    anchor: int | None = None
    final: bool = True
    begin: int = 0


@dataclass(frozen=True)
class Turn:
    """A question and its answer, with what their phrases refer to.

    Attributes:
        names_freely: Whether it is not to be learned how phrases begin in the answer and what follows them: a
            description is of everything in plain words, although sentences of all kinds are read as one.
    """

    question: str
    answer: str
    in_question: tuple[Look, ...] = ()
    in_answer: tuple[Look, ...] = ()
    names_freely: bool = False


def name_in(words: str) -> Name:
    """The attributes that words such as `"the striped red circle with a white dot"` name."""
    parts = [PLURALS.get(word, word) for word in words.split()]
    if "dot" in parts:
        at = parts.index("dot") - 1
        dot, parts = parts[at], parts[: at - 2]
    else:
        dot = ""

    def first(known: Sequence[str]) -> str:
        return next((word for word in parts if word in known), "")

    return Name(first(tuple(COLOURS)), first(TEXTURES), first(SHAPES), dot)


def looks_of(reference: Reference, things: Things, start: int) -> list[Look]:
    """Where the noun of a reference and its end look, if it begins at a character of a text."""
    words, end = reference.words, start + len(reference.words)
    anchor = None
    if match := RELATION.search(words):
        name = name_in(match[2])
        anchors = [index for index, thing in enumerate(things) if name.matches(thing)]
        anchor = anchors[0] if len(anchors) == 1 else None
    found = [Look(end, reference.things, anchor, begin=start)]
    cut = min(match.start() if match else len(words), words.index(" that ") if " that " in words else len(words))
    if cut < len(words):
        noun = name_in(words[:cut])
        of_noun = tuple(index for index, thing in enumerate(things) if noun.matches(thing))
        found.insert(0, Look(start + cut, of_noun, final=False, begin=start))
    return found


def sentence(
    references: Sequence[Reference], things: Things, after: Sequence[str] = ()
) -> tuple[str, tuple[Look, ...]]:
    """References one after the other, each followed by some words."""
    text, looks = "", []
    for position, reference in enumerate(references):
        if position:
            text += " and " if position == len(references) - 1 else " , "
        looks += looks_of(reference, things, len(text))
        text += reference.words + (after[position] if after else "")
    return text + " .", tuple(looks)


def say(rng: Rng, things: Things, places: Sequence[str]) -> list[Turn]:
    """One way of talking about a scene: one turn, or two of a conversation."""
    ways: tuple[Callable[..., Turn | None], ...] = (referring, relating, naming, caption, asking)
    way = _drawn(rng, ways, (0.2, 0.18, 0.08, 0.12, 0.42))
    turns = [way(rng, things, places)]
    if way is asking and rng.random() < 0.4:
        turns.append(asking(rng, things, places))
    found = [turn for turn in turns if turn]
    return found or [caption(rng, things, places)]


def referring(rng: Rng, things: Things, places: Sequence[str]) -> Turn:
    """A sentence of references like those of hard scenes, more often by relation than there."""
    del places
    text, looks = sentence(refer(rng, things, int(rng.integers(1, 4))), things)
    return Turn(DESCRIBE_QUESTION, text, in_answer=looks, names_freely=True)


def relating(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    """A sentence of references by relation alone, the hardest to learn."""
    del places
    wanted, found = int(rng.integers(1, 4)), dict[str, Reference]()
    for _ in range(40):
        if len(found) < wanted and (reference := by_relation(rng, things)):
            found[reference.words] = reference
    if not found:
        return None
    text, looks = sentence(list(found.values()), things)
    return Turn(DESCRIBE_QUESTION, text, in_answer=looks, names_freely=True)


def naming(rng: Rng, things: Things, places: Sequence[str]) -> Turn:
    """Mere names, of what is there and what is not, with any article or none, alone or in a row."""
    del places
    references = []
    for _ in range(int(rng.integers(1, 4))):
        article = _drawn(rng, ("a ", "the ", ""))
        if rng.random() < 0.7:
            thing = things[int(rng.integers(len(things)))]
            kinds = [kind for kind in ("colour", "shape", "texture", "dot") if getattr(thing, kind)]
            chosen = [kind for kind in kinds if rng.random() < {"colour": 0.85, "shape": 0.9}.get(kind, 0.4)]
            name = Name.of(thing, chosen)
        else:
            name = Name(_drawn(rng, tuple(COLOURS)), "", _drawn(rng, SHAPES), _drawn(rng, ("", "", *DOTS)))
        found = tuple(index for index, thing in enumerate(things) if name.matches(thing))
        references.append(Reference(article + name.words(), found, ()))
    text, looks = sentence(references, things)
    return Turn(DESCRIBE_QUESTION, text, in_answer=looks, names_freely=True)


def caption(rng: Rng, things: Things, places: Sequence[str]) -> Turn:
    """Everything in the image in any order, as captions of easy scenes do."""
    order = rng.permutation(len(things))[:5]
    after = [f" {places[index]}" if rng.random() < 0.5 else "" for index in order]
    references = [_named(things, int(index)) for index in order]
    text, looks = sentence(references, things, after)
    return Turn(DESCRIBE_QUESTION, text, in_answer=looks)


def full_name(thing: Thing) -> str:
    """Colour, shape and dot: `"a red circle with a white dot"`."""
    return "a " + Name.of(thing, ("colour", "shape", "dot")).words()


def asking(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    """A question about the scene, and its answer."""
    ways = (_what_is_beside, _where, _which_colour, _how_many, _is_there, _largest, _what_is_at)
    way = _drawn(rng, ways, (0.45, 0.12, 0.08, 0.1, 0.1, 0.05, 0.1))
    return next(filter(None, (way(rng, things, places) for _ in range(8))), None)


def _list(rng: Rng, things: Things, found: Sequence[int]) -> tuple[str, tuple[Look, ...]]:
    order = [found[index] for index in rng.permutation(len(found))]
    return sentence([_named(things, index) for index in order], things)


def _named(things: Things, index: int) -> Reference:
    """A thing by its full name, which others may share."""
    name = Name.of(things[index], ("colour", "shape", "dot"))
    return Reference(full_name(things[index]), tuple(i for i, other in enumerate(things) if name.matches(other)), ())


def _question(rng: Rng, before: str, reference: Reference, things: Things) -> tuple[str, tuple[Look, ...]]:
    if rng.random() < 0.5:
        before = before[0].lower() + before[1:]
    return f"{before}{reference.words}?", tuple(looks_of(reference, things, len(before)))


def _what_is_beside(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    del places
    anchor, relation = int(rng.integers(len(things))), _drawn(rng, tuple(RELATIONS))
    name = unique_name(rng, things, anchor)
    others = [index for index in range(len(things)) if index != anchor]
    if name is None or (found := related(things, others, anchor, relation)) is None or len(found) > 3:
        return None
    if not found and rng.random() > KEPT_NOTHING:
        return None
    reference = Reference(f"the {name.words()}", tuple(found), ())
    question, looks = _question(rng, f"What is {relation} ", reference, things)
    looks = (*looks[:-1], replace(looks[-1], anchor=anchor))
    answer, in_answer = _list(rng, things, found) if found else ("nothing .", ())
    return Turn(question, answer, looks, in_answer)


def _present(rng: Rng, things: Things) -> Reference | None:
    reference = refer_to_present(rng, things)
    return reference if reference and len(reference.things) == 1 and reference.words.startswith("the ") else None


def _where(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    if (reference := _present(rng, things)) is None:
        return None
    question, looks = _question(rng, "Where is ", reference, things)
    return Turn(question, f"{places[reference.things[0]]} .", looks)


def _which_colour(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    del places
    kind = _drawn(rng, ("colour", "shape"))
    reference = _present(rng, things)
    if reference is None or getattr(things[reference.things[0]], kind) in reference.words.split():
        return None
    question, looks = _question(rng, f"What {kind} is ", reference, things)
    return Turn(question, f"{getattr(things[reference.things[0]], kind)} .", looks)


def _how_many(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    del places
    thing = things[int(rng.integers(len(things)))]
    name = Name.of(thing, _drawn(rng, (["shape"], ["colour"], ["colour", "shape"], [])))
    if rng.random() < 0.25:
        name = Name(_drawn(rng, tuple(COLOURS)), "", _drawn(rng, ("", *SHAPES)))
    found = tuple(index for index, other in enumerate(things) if name.matches(other))
    noun = name.shape or "shape"
    words = name.words().replace(noun, plural_of(noun))
    question, looks = _question(rng, "How many ", Reference(words, found, ()), things)
    return Turn(f"{question[:-1]} are there?", f"{COUNTS[len(found)]} .", looks)


def _is_there(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    if rng.random() < 0.5:
        thing = int(rng.integers(len(things)))
        name = Name.of(things[thing], ["colour", "shape"])
    else:
        name = Name(_drawn(rng, tuple(COLOURS)), "", _drawn(rng, SHAPES))
    found = tuple(index for index, other in enumerate(things) if name.matches(other))
    question, looks = _question(rng, "Is there ", Reference(f"a {name.words()}", found, ()), things)
    answer = "no ." if not found else f"yes , {places[found[0]]} ." if len(found) == 1 else "yes ."
    return Turn(question, answer, looks)


def _largest(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    del places
    by_radius = sorted(range(len(things)), key=lambda index: things[index].radius)
    word, index, other = (
        ("largest", by_radius[-1], by_radius[-2]) if rng.random() < 0.5 else ("smallest", *by_radius[:2])
    )
    if max(things[index].radius, things[other].radius) < 1.3 * min(things[index].radius, things[other].radius):
        return None
    question, looks = _question(rng, "What is ", Reference(f"the {word} shape", (index,), ()), things)
    answer, in_answer = _list(rng, things, [index])
    return Turn(question, answer, looks, in_answer)


def _what_is_at(rng: Rng, things: Things, places: Sequence[str]) -> Turn | None:
    place = _drawn(rng, places)
    found = [index for index, other in enumerate(places) if other == place]
    if len(found) > 3:
        return None
    answer, in_answer = _list(rng, things, found)
    start = "What" if rng.random() < 0.5 else "what"
    asked = f"{start} is {place}"
    return Turn(f"{asked}?", answer, (Look(len(asked), tuple(found)),), in_answer)


def corpus() -> list[str]:
    """Every word of the texts, for a tokenizer."""
    words = "a the one left of right above below largest smallest both all that is has with dot and , . What what Where"
    words += " where How how many Is there are colour shape nothing yes no at top bottom center"
    known = itertools.chain(COLOURS, SHAPES, DOTS, TEXTURES, PLURALS, COUNTS.values(), words.split())
    return [f"? {word} {word}" for word in known]


def _drawn(rng: Rng, choices: Sequence[T], weights: Sequence[float] | None = None) -> T:
    return choices[int(rng.choice(len(choices), p=weights))]
