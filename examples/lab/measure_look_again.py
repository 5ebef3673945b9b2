"""Measure what looking again is worth where things are too small for the first grid.

    python examples/lab/measure_look_again.py [--model NAME ...] [--count 100] [--canvas 4] [--report FILE]

Scenes have two to four shapes of different colours at their usual size, on a canvas 4 times as wide and as high, so
that the image tokens are as many and a shape is about one and a half of them wide. In each scene one shape is asked
about: what is the likeliest word after "a red", and where is "a red star"? The first is asked about the whole image,
about the crop around what the model itself grounds of "a red", about a crop of the same size at a random place, and
about the crop around the true mask. The second is answered by one look, by a closer look, and in the random crop.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from report import table, write_report

from vlm_adapters import GroundedVLM, Grounder, Prompt, TransformersBackbone, load_adapter
from vlm_adapters.data.formats.drawing import background, coverage, outline, paint
from vlm_adapters.data.formats.scenes import COLOURS, HELD_OUT_SEED, SCALES, SHAPES
from vlm_adapters.embedded.scene_likeness import looks_like_scene
from vlm_adapters.errors import UnlikeSceneWarning
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding import CloserLook, Crop, Grounding, crop_from
from vlm_adapters.grounding.result import PackedMask

MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
WHOLE, CLOSER, RANDOM, TRUE = "the whole image", "a closer look", "a random crop", "the crop around the truth"
DRAWS = 2000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class SmallThing:
    """A scene, and the shape in it that is asked about.

    Attributes:
        image: The scene.
        colour: Colour of the shape, which no other has.
        shape: Its shape word.
        mask: `(H, W)` bool.
    """

    image: Image.Image = field(repr=False)
    colour: str
    shape: str
    mask: NDArray[np.bool_] = field(repr=False)


def small_things(count: int, canvas: int) -> Iterator[SmallThing]:
    """Draw scenes on a canvas so many times as wide and as high as usual."""
    for number in range(count):
        rng = np.random.default_rng((HELD_OUT_SEED, number, canvas))
        width, height = (int(side) for side in rng.integers(180, 321, 2))
        pixels = background(rng, width * canvas, height * canvas)
        masks: list[NDArray[np.bool_]] = []
        placed: list[tuple[float, float, float]] = []
        names = [
            (str(colour), str(rng.choice(SHAPES))) for colour in rng.permutation(list(COLOURS))[: rng.integers(2, 5)]
        ]
        for colour, shape in names:
            radius = SCALES[shape] * rng.uniform(0.36, 0.56) * min(width, height) / 2
            x, y = _free_place(rng, pixels.shape, radius, placed)
            placed.append((x, y, radius))
            cover, window = coverage(outline(shape, rng.uniform(0, 2 * math.pi)), (x, y), radius, pixels.shape)
            paint(pixels[window], cover, np.array(COLOURS[colour]))
            masks.append(np.zeros(pixels.shape[:2], np.bool_))
            masks[-1][window] = cover >= 0.5
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        yield SmallThing(image, *names[0], masks[0])


def _free_place(
    rng: np.random.Generator, size: Sequence[int], radius: float, placed: Sequence[tuple[float, float, float]]
) -> tuple[float, float]:
    while True:
        x, y = rng.uniform(radius, size[1] - radius), rng.uniform(radius, size[0] - radius)
        if all(math.dist((x, y), other[:2]) > radius + other[2] + 2 for other in placed):
            return x, y


def next_word(adapter: TransformersBackbone, image: Image.Image, begun: str) -> str:
    """The likeliest token after the beginning of an answer."""
    inputs = adapter.preprocess([Prompt.describe(image, begun, [(0, len(begun))])])
    with torch.no_grad():
        logits = adapter.model(**inputs.tensors).logits
    last = int(inputs.phrase_tokens[0][0][-1])
    return str(adapter.processor.tokenizer.decode(logits[0, last].argmax())).strip()


def elsewhere(rng: np.random.Generator, crop: Crop) -> Crop:
    """A crop of the same size at a random place."""
    left, top, right, bottom = crop.box
    wide, high = right - left, bottom - top
    x, y = (int(rng.integers(0, free + 1)) for free in (crop.original.width - wide, crop.original.height - high))
    return Crop(crop.original, (x, y, x + wide, y + high))


def around_truth(grounding: Grounding, mask: NDArray[np.bool_]) -> Crop:
    """The crop that there would be if the true mask had been found."""
    (phrase,) = grounding.phrases
    true = Grounding(
        grounding.image, grounding.text, (type(phrase)(phrase.phrase, PackedMask.of(mask), 1, phrase.attention),)
    )
    return crop_from(true)


def measure(model: str, count: int, canvas: int) -> dict[str, Any]:
    """Ask and ground in every scene, in every way."""
    adapter = load_adapter(model)
    grounder = GroundedVLM.from_pretrained(model, adapter=adapter)
    words: dict[str, list[bool]] = defaultdict(list)
    ious: dict[str, list[float]] = defaultdict(list)
    cells, unlike = [], 0
    for number, thing in enumerate(small_things(count, canvas)):
        begun, name = f"a {thing.colour}", f"a {thing.colour} {thing.shape}"
        found = grounder.ground(thing.image, begun, [begun])
        crop, rng = _crop(found), np.random.default_rng((number, 1))
        crops = {WHOLE: thing.image, CLOSER: crop.image, RANDOM: elsewhere(rng, crop).image}
        for way, image in (crops | {TRUE: around_truth(found, thing.mask).image}).items():
            words[way].append(next_word(adapter, image, begun) == thing.shape)
        for way, grounding in _groundings(rng, grounder, thing.image, name).items():
            ious[way].append(mask_iou(grounding.phrases[0].mask, thing.mask))
        cells.append(_cells_wide(adapter, thing))
        unlike += not looks_like_scene(thing.image)
    return {
        "median width of a shape, in cells": round(float(np.median(cells)), 2),
        "images that are unlike a scene": unlike,
        "word right": {way: _with_interval(hits) for way, hits in words.items()},
        "mask IoU": {way: _with_interval(found) for way, found in ious.items()},
        "mask IoU above 0.5": {way: _with_interval([iou > 0.5 for iou in found]) for way, found in ious.items()},
    }


def _crop(grounding: Grounding) -> Crop:
    """The crop around what was found; the whole image where nothing was."""
    whole = Crop(grounding.image, (0, 0, *grounding.image.size))
    return crop_from(grounding) if grounding.phrases[0].box else whole


def _groundings(rng: np.random.Generator, grounder: Grounder, image: Image.Image, name: str) -> dict[str, Grounding]:
    once = grounder.ground(image, name, [name])
    crop = elsewhere(rng, _crop(once))
    return {
        WHOLE: once,
        CLOSER: CloserLook(grounder).ground(image, name, [name]),
        RANDOM: crop.placed_back(grounder.ground(crop.image, name, [name])),
    }


def _cells_wide(adapter: TransformersBackbone, thing: SmallThing) -> float:
    """The diameter of the circle of a shape's area, in cells of the first grid."""
    grid = adapter.locate_image_tokens(adapter.preprocess([Prompt.describe(thing.image, "a")]))[0][-1]
    left, top, right, bottom = grid.cell_box(0, 0)
    return 2 * math.sqrt(thing.mask.sum() / math.pi) / math.sqrt((right - left) * (bottom - top))


def _with_interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean, and 95 % of the draws of a bootstrap over the scenes."""
    drawn = np.random.default_rng(0).choice(np.array(values, float), (DRAWS, len(values))).mean(axis=1)
    interval = [round(float(end), 4) for end in np.quantile(drawn, (0.025, 0.975))]
    return {"value": round(float(np.mean(values)), 4), "interval": interval}


def main() -> None:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, help="embedded checkpoints, or directories")
    parser.add_argument("--count", type=int, default=100, help="scenes")
    parser.add_argument("--canvas", type=int, default=4, help="how many times as wide and as high as usual")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnlikeSceneWarning)  # counted
    found = {model: measure(model, arguments.count, arguments.canvas) for model in arguments.model}
    for model, numbers in found.items():
        rows = [(what, way, one["value"]) for what in ("word right", "mask IoU") for way, one in numbers[what].items()]
        print(model, table(("", "", "share"), rows), sep="\n")
    if arguments.report:
        write_report(arguments.report, {"scenes": arguments.count, "canvas": arguments.canvas, "models": found})


if __name__ == "__main__":
    main()
