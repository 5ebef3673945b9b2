"""Scenes whose captions also name things that are not there: of a wrong colour, shape or dot, or alike to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES, Scenes, caption, place_words
from vlm_adapters.data.formats.things import OTHER_THINGS
from vlm_adapters.data.sample import ABSENT, Sample
from vlm_adapters.prompt import Phrase

KINDS = ("wrong colour", "wrong shape", "wrong pair", "wrong dot", "nothing alike")
"""Second tag of an absent phrase. `wrong pair`: the colour of one shape and the shape of another."""

MOST_ABSENT = 3
ALONE = 0.4
"""How often a sample in words of one's own has one phrase alone."""
ARTICLES = ("a ", "the ", "")
PLACES = tuple(
    f"at the {place}"
    for place in ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
)

Rng = np.random.Generator


class ShapeName(NamedTuple):
    """What a phrase says of a shape."""

    colour: str
    shape: str
    dot: str

    @classmethod
    def of(cls, words: str) -> ShapeName:
        """Read `"a red circle with a white dot"`."""
        parts = words.split()
        return cls(parts[1], parts[2], parts[parts.index("dot") - 1] if "dot" in parts else "")

    def words(self) -> str:
        """The phrase."""
        return f"a {self.colour} {self.shape}" + (f" with a {self.dot} dot" if self.dot else "")


class AbsentScenes(Dataset):
    """The scenes of `Scenes`, with captions that name up to `MOST_ABSENT` things that are not there.

    Args:
        count: Number of samples.
        seed: Seed of the stream of scenes.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self._scenes, self._seed = Scenes(count, seed=seed), seed

    @property
    @override
    def source(self) -> str:
        return f"{self._scenes.source} with absent phrases"

    def __len__(self) -> int:
        return len(self._scenes)

    @override
    def sample(self, index: int) -> Sample:
        scene, rng = self._scenes[index], np.random.default_rng((self._seed, index, 1))
        there = [phrase.text for phrase in scene.phrases]
        absent = absent_phrases(rng, there, int(rng.integers(0, MOST_ABSENT + 1)))
        places = [place_words(mask) for mask in scene.masks] + [str(rng.choice(PLACES)) for _ in absent]
        text, phrases = caption(rng, [*there, *(words for words, _ in absent)], places)
        empty = np.zeros((len(absent), *scene.masks.shape[1:]), np.bool_)
        tags = ((),) * len(there) + tuple((ABSENT, kind) for _, kind in absent)
        return replace(scene, text=text, phrases=phrases, masks=np.concatenate([scene.masks, empty]), phrase_tags=tags)


def reworded(rng: Rng, sample: Sample) -> Sample:
    """The same sample in words of one's own: other articles or none, and now and then one of its phrases alone."""
    chosen = [int(rng.integers(len(sample.phrases)))] if rng.random() < ALONE else range(len(sample.phrases))
    text, phrases, last = "", [], sample.phrases[0].end if len(chosen) == 1 else 0
    for index in sorted(chosen, key=lambda index: sample.phrases[index].start):
        phrase = sample.phrases[index]
        words = phrase.text
        for article in ARTICLES:
            if article and words.startswith(article):
                words = str(rng.choice(ARTICLES)) + words.removeprefix(article)
                break
        text += sample.text[last : phrase.start] if len(chosen) > 1 else ""
        phrases.append((index, Phrase(words, len(text), len(text) + len(words))))
        text, last = text + words, phrase.end
    text += sample.text[last:] if len(chosen) > 1 else ""
    order = [index for index, _ in sorted(phrases, key=lambda pair: pair[0])]
    of_index = dict(phrases)
    return replace(
        sample,
        text=text,
        phrases=tuple(of_index[index] for index in order),
        phrase_tags=tuple(sample.phrase_tags[index] for index in order) if sample.phrase_tags else (),
        masks=sample.masks[order],
    )


def absent_phrases(rng: Rng, there: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Name things that are not in a scene, each with its kind; fewer where no more are found."""
    names = [ShapeName.of(words) for words in there]
    found: dict[str, str] = {}
    for _ in range(20 * count):
        kind = str(rng.choice(KINDS))
        words = _absent(rng, kind, names)
        if words and words not in there and len(found) < count:
            found.setdefault(words, kind)
    return list(found.items())


def _absent(rng: Rng, kind: str, names: Sequence[ShapeName]) -> str:
    """One absent phrase; empty where the scene has none of this kind, or the draw names something that is there."""
    one, other = (names[index] for index in rng.integers(len(names), size=2))
    colours = [colour for colour in COLOURS if colour not in {name.colour for name in names}]
    shapes = [shape for shape in SHAPES if shape not in {name.shape for name in names}]
    dot = str(rng.choice(["", *DOTS]))
    if kind == "nothing alike" and rng.random() < 0.5:
        noun = str(rng.choice(OTHER_THINGS))
        return f"the {noun}" if rng.random() < 0.5 else f"a {rng.choice(list(COLOURS))} {noun}"
    if kind == "wrong dot":  # one without a dot may be named without it, so nothing is wrong in leaving a dot out
        return one._replace(dot=dot).words() if dot not in ("", one.dot) else ""
    name = {
        "wrong colour": lambda: ShapeName(_one_of(rng, colours), one.shape, dot),
        "wrong shape": lambda: ShapeName(one.colour, _one_of(rng, shapes), dot),
        "wrong pair": lambda: ShapeName(one.colour, other.shape, dot),
        "nothing alike": lambda: ShapeName(_one_of(rng, colours), _one_of(rng, shapes), dot),
    }[kind]()
    is_there = any((name.colour, name.shape) == (of.colour, of.shape) for of in names)
    return "" if is_there or not (name.colour and name.shape) else name.words()


def _one_of(rng: Rng, choices: Sequence[str]) -> str:
    return str(rng.choice(choices)) if choices else ""
