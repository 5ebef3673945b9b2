"""Hard scenes: shapes that overlap, are textured or small, and share colours, and sentences that refer to them.

A sentence names some shapes by attributes, relations, counts and clauses, and others that are not there. The tags of a
phrase say what makes it hard (`KINDS`); a phrase that is not in the image has an empty mask, and the tag of how it is
wrong (`ABSENCES`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.drawing import background, coverage, outline, paint
from vlm_adapters.data.formats.references import refer
from vlm_adapters.data.formats.scenes import (
    COLOUR_JITTER,
    COLOURS,
    DOT_RADIUS,
    DOTS,
    SCALES,
    SHAPES,
)
from vlm_adapters.data.formats.things import SMALL, Reference, Thing
from vlm_adapters.data.sample import Sample
from vlm_adapters.prompt import Phrase

HELD_OUT_SEED = 14
"""Seed of the hard scenes that embedded checkpoints are evaluated on, and that nothing is trained or chosen on."""

FEWEST, MOST = 4, 8
LEAST_VISIBLE = 0.45
"""Share of a shape that other shapes never cover."""
SMALL_CHANCE, OVERLAP_CHANCE, TEXTURE_CHANCE, DOT_CHANCE = 0.2, 0.4, 0.35, 0.35
DETAIL_RADIUS = 16
"""Smallest radius in pixels of a shape with a dot or a texture: on a smaller one neither could be seen."""
PHRASES = (2, 5)
ATTEMPTS = 40


@dataclass(frozen=True)
class HardScene:
    """An image and what is in it.

    Attributes:
        image: RGB image of `H x W` pixels.
        things: The shapes, the lowest first.
        masks: `(N, H, W)` bool: what can be seen of each.
    """

    image: Image.Image = field(repr=False)
    things: tuple[Thing, ...]
    masks: NDArray[np.bool_] = field(repr=False)


class HardScenes(Dataset):
    """Hard scenes by seed. Sample `i` depends on `seed` and `first + i` alone.

    Args:
        count: Number of samples.
        seed: Seed of the stream of scenes.
        first: Position in the stream of the first sample.
    """

    def __init__(self, count: int, *, seed: int = 0, first: int = 0) -> None:
        self._numbers = range(first, first + count)
        self._seed = seed

    @property
    @override
    def source(self) -> str:
        return f"hard_scenes:count={len(self)},seed={self._seed},first={self._numbers.start}"

    def __len__(self) -> int:
        return len(self._numbers)

    def scene(self, index: int) -> HardScene:
        """The scene of a sample, before anything is said about it."""
        return draw_scene(np.random.default_rng((self._seed, self._numbers[index], 0)))

    @override
    def sample(self, index: int) -> Sample:
        number, scene = self._numbers[index], self.scene(index)
        rng = np.random.default_rng((self._seed, number, 1))
        references = refer(rng, scene.things, int(rng.integers(PHRASES[0], PHRASES[1] + 1)))
        text, phrases = sentence(references)
        masks = np.array([scene.masks[list(reference.things)].any(axis=0) for reference in references])
        name = f"hard-scene-{self._seed}-{number}"
        return Sample(
            id=name,
            image_id=name,
            text=text,
            phrases=phrases,
            phrase_tags=tuple(reference.kinds for reference in references),
            image=scene.image,
            masks=masks,
        )


def sentence(references: Sequence[Reference], after: Sequence[str] = ()) -> tuple[str, tuple[Phrase, ...]]:
    """Write references as one sentence, and find the phrases in it.

    Args:
        references: What is named, in this order.
        after: Words that follow each of them; empty for none.
    """
    text, phrases = "", []
    for position, reference in enumerate(references):
        if position:
            text += " and " if position == len(references) - 1 else " , "
        phrases.append(Phrase(reference.words, len(text), len(text) + len(reference.words)))
        text += reference.words + (after[position] if after else "")
    return text + " .", tuple(phrases)


class _Placed(NamedTuple):
    thing: Thing
    cover: NDArray[np.float32]
    window: tuple[slice, slice]
    visible: NDArray[np.bool_]
    area: int


def draw_scene(rng: np.random.Generator) -> HardScene:
    """Draw a scene: an image, its shapes and what can be seen of each."""
    width, height = (int(side) for side in rng.integers(180, 321, 2))
    placed: list[_Placed] = []
    while len(placed) < 2:  # a relation takes two
        placed = _place(rng, width, height, int(rng.integers(FEWEST, MOST + 1)))
    canvas = background(rng, width, height)
    for thing, cover, window, _, _ in placed:
        _draw(rng, canvas, thing, cover, window)
    canvas += rng.uniform(0, 5) * rng.standard_normal((height, width, 1), dtype=np.float32)
    things = tuple(Thing(**{**vars(item.thing), "visible": float(item.visible.sum() / item.area)}) for item in placed)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    return HardScene(image, things, np.array([item.visible for item in placed]))


def _place(rng: np.random.Generator, width: int, height: int, count: int) -> list[_Placed]:
    """Place shapes one over the other so that enough of each is seen; one that finds no place is left out."""
    colours = rng.permutation(list(COLOURS))[: rng.integers(2, 5)].tolist()
    shapes = rng.permutation(SHAPES)[: rng.integers(2, 5)].tolist()
    placed: list[_Placed] = []
    for _ in range(count):
        colour, shape = str(rng.choice(colours)), str(rng.choice(shapes))
        small = rng.random() < SMALL_CHANCE
        fraction = rng.uniform(0.1, 0.13) if small else rng.uniform(0.22, 0.5)
        overlap = bool(placed) and rng.random() < OVERLAP_CHANCE
        for attempt in range(ATTEMPTS):
            shrink = 1.0 if small else 0.985**attempt
            radius = max(10.0, SCALES[shape] * fraction * shrink * min(width, height) / 2)
            centre = _near(rng, placed, radius) if overlap else None
            x, y = centre or (rng.uniform(0, width), rng.uniform(0, height))
            x, y = min(max(x, radius), width - radius), min(max(y, radius), height - radius)
            if not overlap and any(math.dist((x, y), p.thing.centre) < radius + p.thing.radius + 2 for p in placed):
                continue
            detailed = radius >= DETAIL_RADIUS
            texture = str(rng.choice(("striped", "shaded"))) if detailed and rng.random() < TEXTURE_CHANCE else ""
            dot = str(rng.choice(list(DOTS))) if detailed and rng.random() < DOT_CHANCE else ""
            size = radius / min(width, height)
            thing = Thing(colour, shape, dot, (x, y), radius, rng.uniform(0, 2 * math.pi), texture, size < SMALL)
            if (after := _covered(placed, thing, (height, width))) is not None:
                placed = after
                break
    return placed


def _near(rng: np.random.Generator, placed: Sequence[_Placed], radius: float) -> tuple[float, float]:
    """A place where a shape of a radius covers a part of one of those placed."""
    other = placed[int(rng.integers(len(placed)))].thing
    turn, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 0.95) * (radius + other.radius)
    return other.centre[0] + distance * math.cos(turn), other.centre[1] + distance * math.sin(turn)


def _covered(placed: Sequence[_Placed], thing: Thing, size: tuple[int, int]) -> list[_Placed] | None:
    """The shapes with one more on top; None if too little of another, or of its dot, were left."""
    cover, window = coverage(outline(thing.shape, thing.angle), thing.centre, thing.radius, (*size, 3))
    mask = np.zeros(size, np.bool_)
    mask[window] = cover >= 0.5
    found = []
    for item in placed:
        visible = item.visible & ~mask
        if visible.sum() < LEAST_VISIBLE * item.area or (item.thing.dot and _dot_is_hit(item.thing, mask)):
            return None
        found.append(item._replace(visible=visible))
    return [*found, _Placed(thing, cover, window, mask, int(mask.sum()))]


def _dot_is_hit(thing: Thing, mask: NDArray[np.bool_]) -> bool:
    reach = DOT_RADIUS * thing.radius
    left, top = (max(0, int(middle - reach)) for middle in thing.centre)
    right, bottom = (int(middle + reach) + 1 for middle in thing.centre)
    return bool(mask[top:bottom, left:right].any())


def _draw(
    rng: np.random.Generator,
    canvas: NDArray[np.float32],
    thing: Thing,
    cover: NDArray[np.float32],
    window: tuple[slice, slice],
) -> None:
    """Draw a shape in its colour, which a texture makes lighter and darker, and its dot."""
    colour = np.array(COLOURS[thing.colour]) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
    y, x = np.mgrid[window]
    turn = rng.uniform(0, 2 * math.pi)
    along = ((x - thing.centre[0]) * math.cos(turn) + (y - thing.centre[1]) * math.sin(turn)) / thing.radius
    if thing.texture == "striped":
        dark = (np.sin(along * rng.uniform(7, 12)) > 0)[..., None]
        colour = np.where(dark, 0.45 * colour, colour)
    elif thing.texture == "shaded":
        blend = np.clip(0.5 + 0.5 * along, 0, 1)[..., None]
        colour = 0.4 * colour * blend + (colour + 0.5 * (255 - colour)) * (1 - blend)
    paint(canvas[window], cover, colour)
    if thing.dot:
        cover, window = coverage(outline("circle", 0.0), thing.centre, DOT_RADIUS * thing.radius, canvas.shape)
        paint(canvas[window], cover, np.array(DOTS[thing.dot]))
