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
from PIL import Image, ImageDraw
from typing_extensions import override

from vlm_adapters.data.dataset import Dataset
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

SUPERSAMPLING = 4
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
    canvas = _background(rng, width, height)
    masks = np.zeros((len(objects), height, width), dtype=np.bool_)
    for mask, thing in zip(masks, objects, strict=True):
        colour = np.array(COLOURS[thing.colour]) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
        outline = _outline(thing.shape, thing.angle)
        cover, window = _coverage(outline, thing.centre, thing.radius, canvas.shape)
        mask[window] = cover >= 0.5
        _paint(canvas[window], cover, colour)
        if thing.dot:
            outline = _outline("circle", 0.0)
            cover, window = _coverage(outline, thing.centre, DOT_RADIUS * thing.radius, canvas.shape)
            _paint(canvas[window], cover, np.array(DOTS[thing.dot]))
    canvas += rng.uniform(0, 5) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8), masks


def _paint(canvas: NDArray[np.float32], cover: NDArray[np.float32], colour: NDArray[np.generic]) -> None:
    canvas += cover[..., None] * (colour.astype(np.float32) - canvas)


def _coverage(
    outline: Sequence[tuple[float, float]], centre: tuple[float, float], radius: float, size: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """Compute how much of each pixel around `centre` a shape covers, 0 to 1, and the window of these pixels."""
    left, top = (max(0, math.floor(middle - radius) - 1) for middle in centre)
    right, bottom = (math.ceil(middle + radius) + 1 for middle in centre)
    right, bottom = min(right, size[1]), min(bottom, size[0])
    stamp = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    points = [
        ((centre[0] - left + radius * x) * SUPERSAMPLING, (centre[1] - top + radius * y) * SUPERSAMPLING)
        for x, y in outline
    ]
    ImageDraw.Draw(stamp).polygon(points, fill=255)
    cover = np.asarray(stamp.reduce(SUPERSAMPLING), dtype=np.float32) / np.float32(255)
    return cover, (slice(top, bottom), slice(left, right))


def _outline(shape: str, angle: float) -> list[tuple[float, float]]:
    """Compute the corners of a shape within the unit circle, turned by `angle`."""
    if shape == "star":
        polar = [(1.0 if k % 2 == 0 else 0.48, k * math.pi / 5) for k in range(10)]
    elif shape == "cross":
        arm = 0.4
        corner, notch = math.atan(arm), (math.hypot(1, arm) ** -1) * arm * math.sqrt(2)
        polar = [
            (length, k * math.pi / 2 + turn)
            for k in range(4)
            for length, turn in ((1.0, -corner), (1.0, corner), (notch, math.pi / 4))
        ]
    else:
        corners = {"circle": 48, "square": 4, "triangle": 3}[shape]
        polar = [(1.0, k * 2 * math.pi / corners) for k in range(corners)]
    return [(length * math.cos(turn + angle), length * math.sin(turn + angle)) for length, turn in polar]


def _background(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    """Draw a gradient, stripes or blocks of two muted colours, `(H, W, 3)`."""
    low, high = (_muted(rng).astype(np.float32) for _ in range(2))
    y, x = (axis.astype(np.float32) / min(width, height) for axis in np.ogrid[0:height, 0:width])
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    kind = rng.choice(["gradient", "stripes", "blocks"])
    if kind == "gradient":
        blend = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        blend = 0.5 + 0.3 * np.clip(4 * np.sin(along * rng.uniform(15, 60)), -1, 1)
    else:
        cells = rng.random([int(n) for n in rng.integers(4, 16, 2)], dtype=np.float32)
        row = (np.arange(height) * cells.shape[0] // height)[:, None]
        blend = cells[row, np.arange(width) * cells.shape[1] // width]
    return np.asarray(low + blend[..., None] * (high - low), dtype=np.float32)


def _muted(rng: np.random.Generator) -> NDArray[np.float64]:
    """Choose a colour with little saturation, so that no background passes for a shape."""
    return np.asarray(rng.uniform(40, 225) + rng.uniform(-28, 28, 3))


def named_shapes(text: str) -> list[tuple[int, int]]:
    """Find the spans of coloured shapes that a sentence names in the words of scenes; if none, the whole text.

    Args:
        text: Any sentence, such as `"A red circle and the blue star with a black dot."`.
    """
    colours, shapes, dots = ("|".join(words) for words in (COLOURS, SHAPES, DOTS))
    name = rf"(?:\b(?:an?|the) )?\b(?:{colours}) (?:{shapes})\b(?: with an? (?:{dots}) dot\b)?"
    return [match.span() for match in re.finditer(name, text, re.IGNORECASE)] or [(0, len(text))]


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
