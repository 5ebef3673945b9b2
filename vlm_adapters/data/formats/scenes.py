"""Synthetic scenes: coloured shapes over noise, a caption that names each, and the exact mask of every phrase.

A scene has two to four shapes. The caption names them in random order, so that only looking at the image predicts the
word for a shape from its colour. It says of each shape whether it has a dot and, for half of them, where it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.formats.drawing import background, coverage, outline, paint
from vlm_adapters.data.sample import Sample
from vlm_adapters.prompt import Phrase

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (38, 84, 214),
    "yellow": (245, 205, 40),
    "purple": (126, 44, 160),
    "pink": (250, 130, 190),
}
"""Colour words and their mean RGB values."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
"""Shape words."""

DOTS: dict[str, tuple[int, int, int]] = {"white": (250, 250, 250), "black": (12, 12, 12)}
"""Colour words of dots and their RGB values."""

HELD_OUT_SEED = 4
"""Seed of the scenes that embedded checkpoints are evaluated on, and that nothing is trained or chosen on."""

COLOUR_JITTER = 14
DOT_CHANCE = 0.5
PLACE_CHANCE = 0.5
SHARED_COLOUR_CHANCE = 0.4
DOT_RADIUS = 0.3
# Thin shapes get a larger enclosing circle, so that all cover about as much of the image.
SCALES = {"circle": 0.9, "square": 1.1, "triangle": 1.2, "star": 1.25, "cross": 1.15}


@dataclass(frozen=True)
class SceneObject:
    """One shape of a scene.

    Attributes:
        colour: A key of `COLOURS`.
        shape: One of `SHAPES`.
        dot: A key of `DOTS`, or `""` for none.
        centre: `(x, y)` in pixels.
        radius: Radius in pixels of the circle that encloses the shape.
        angle: Rotation in radians.
    """

    colour: str
    shape: str
    dot: str
    centre: tuple[float, float]
    radius: float
    angle: float

    @property
    def phrase(self) -> str:
        """The words that name the shape: `"a red circle with a white dot"`."""
        return f"a {self.colour} {self.shape}" + (f" with a {self.dot} dot" if self.dot else "")


class Scenes(Dataset):
    """Scenes by seed. Sample `i` depends on `seed` and `first + i` alone, so sets with different seeds are disjoint.

    Args:
        count: Number of samples.
        seed: Seed of the stream of scenes.
        first: Position in the stream of the first sample.
        objects: Smallest and largest number of shapes in a scene.
    """

    def __init__(self, count: int, *, seed: int = 0, first: int = 0, objects: tuple[int, int] = (2, 4)) -> None:
        self._numbers = range(first, first + count)
        self._seed = seed
        self._objects = objects

    @property
    @override
    def source(self) -> str:
        fewest, most = self._objects
        uri = f"scenes:count={len(self)},seed={self._seed},first={self._numbers.start}"
        return uri if self._objects == (2, 4) else f"{uri},fewest={fewest},most={most}"

    def __len__(self) -> int:
        return len(self._numbers)

    @override
    def sample(self, index: int) -> Sample:
        number = self._numbers[index]
        rng = np.random.default_rng((self._seed, number))
        width, height = (int(side) for side in rng.integers(180, 321, 2))
        shapes = _place(rng, width, height, self._objects)
        pixels, masks = _render(rng, width, height, shapes)
        text, phrases = caption(rng, [shape.phrase for shape in shapes], [place_words(mask) for mask in masks])
        name = f"scene-{self._seed}-{number}"
        return Sample(id=name, image_id=name, text=text, phrases=phrases, image=Image.fromarray(pixels), masks=masks)


def place_words(mask: NDArray[np.bool_]) -> str:
    """Describe where the centroid of a mask is: `"at the top left"`, `"at the right"`, `"at the center"`.

    The image is divided into thirds, across and down.

    Args:
        mask: `(H, W)`, with at least one pixel.
    """
    rows, columns = np.nonzero(mask)
    down = ("top", "", "bottom")[int(3 * (rows.mean() + 0.5) / mask.shape[0])]
    across = ("left", "", "right")[int(3 * (columns.mean() + 0.5) / mask.shape[1])]
    return "at the " + (" ".join(word for word in (down, across) if word) or "center")


def _place(rng: np.random.Generator, width: int, height: int, objects: tuple[int, int]) -> list[SceneObject]:
    """Choose different shapes, and places where their enclosing circles do not meet."""
    counts = np.arange(objects[0], objects[1] + 1)
    # Fuller scenes are likelier: with one shape, whatever is found would be the right one.
    count = int(rng.choice(counts, p=counts / counts.sum()))
    placed: list[SceneObject] = []
    for colour, shape in _names(rng, count):
        fraction = rng.uniform(0.36, 0.56)
        while True:
            radius = SCALES[shape] * fraction * min(width, height) / 2
            x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
            if all(math.dist((x, y), other.centre) > radius + other.radius + 2 for other in placed):
                break
            # A crowded image takes smaller shapes, so this ends.
            fraction = max(0.15, fraction * 0.995)
        dot = str(rng.choice(list(DOTS))) if rng.random() < DOT_CHANCE else ""
        placed.append(SceneObject(colour, shape, dot, (x, y), radius, rng.uniform(0, 2 * math.pi)))
    return placed


def _names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Choose `count` different pairs of colour and shape, many of which share a colour."""
    names: list[tuple[str, str]] = []
    while len(names) < count:
        shared = names and rng.random() < SHARED_COLOUR_CHANCE
        colour = names[-1][0] if shared else str(rng.choice(list(COLOURS)))
        name = (colour, str(rng.choice(SHAPES)))
        if name not in names:
            names.append(name)
    return names


def _render(
    rng: np.random.Generator, width: int, height: int, objects: Sequence[SceneObject]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw the image `(H, W, 3)` and the masks `(P, H, W)` of its shapes."""
    canvas = background(rng, width, height)
    masks = np.zeros((len(objects), height, width), dtype=np.bool_)
    for mask, thing in zip(masks, objects, strict=True):
        colour = np.array(COLOURS[thing.colour]) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
        cover, window = coverage(outline(thing.shape, thing.angle), thing.centre, thing.radius, canvas.shape)
        mask[window] = cover >= 0.5
        paint(canvas[window], cover, colour)
        if thing.dot:
            cover, window = coverage(outline("circle", 0.0), thing.centre, DOT_RADIUS * thing.radius, canvas.shape)
            paint(canvas[window], cover, np.array(DOTS[thing.dot]))
    canvas += rng.uniform(0, 5) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8), masks


def named_shapes(text: str) -> list[tuple[int, int]]:
    """Find the spans of coloured shapes that a sentence names in the words of scenes; if none, the whole text."""
    return shape_names(text) or [(0, len(text))]


def shape_names(text: str) -> list[tuple[int, int]]:
    """Find the spans of coloured shapes that a sentence names in the words of scenes.

    Args:
        text: Any sentence, such as `"A red circle and the blue star with a black dot."`.
    """
    colours, shapes, dots = ("|".join(words) for words in (COLOURS, SHAPES, DOTS))
    name = rf"(?:\b(?:an?|the) )?\b(?:{colours}) (?:{shapes})\b(?: with an? (?:{dots}) dot\b)?"
    return [match.span() for match in re.finditer(name, text, re.IGNORECASE)]


def caption(rng: np.random.Generator, names: Sequence[str], places: Sequence[str]) -> tuple[str, tuple[Phrase, ...]]:
    """Name every shape, in an order that says nothing about the image.

    Args:
        rng: Generator that chooses the order, and the shapes whose place is described.
        names: The phrases, as in `Sample.phrases`.
        places: The words of `place_words` for each.

    Returns:
        The text, and the names as phrases of it, in the order of `names`.
    """
    order = [int(index) for index in rng.permutation(len(names))]
    text = ""
    phrases: dict[int, Phrase] = {}
    for position, index in enumerate(order):
        if position:
            text += " and " if position == len(order) - 1 else " , "
        phrases[index] = Phrase(names[index], len(text), len(text) + len(names[index]))
        text += names[index]
        if rng.random() < PLACE_CHANCE:
            text += " " + places[index]
    return text + " .", tuple(phrases[index] for index in range(len(names)))
