"""Scenes of both kinds, drawn once for training: resized images, what covers every cell, and the things in them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_family import TinyFamily
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.utils.data import get_worker_info

from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import Scenes, place_words
from vlm_adapters.data.formats.things import Thing
from vlm_adapters.data.sample import Sample

TRAIN_SEED = 21
SHARD = 500
SHARDS = tuple((kind, first) for kind, count in (("hard", 12_000), ("easy", 4_000)) for first in range(0, count, SHARD))
"""Kind and first number of every file of scenes."""


@dataclass(frozen=True)
class PackedScene:
    """A scene as a model sees it.

    Attributes:
        pixels: `(3, H, W)` uint8, before it is normalised.
        cover: `(N, h, w)` uint8, how much of every cell each thing covers, 0 to 255.
        things: The `N` things, in pixels of the image as it was drawn.
        places: Where each is, in the words of `place_words`.
    """

    pixels: Tensor
    cover: Tensor
    things: tuple[Thing, ...]
    places: tuple[str, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the image's tokens."""
        _, rows, columns = self.cover.shape
        return rows, columns


def by_grid(scenes: Sequence[PackedScene], count: int, seed: int) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Endless batches of numbers of scenes of one grid, which comes as often as it is found; for a worker, its own."""
    worker = get_worker_info()
    rng = np.random.default_rng((seed, worker.id if worker else 0))
    grids = defaultdict(list)
    for number, scene in enumerate(scenes):
        grids[scene.grid].append(number)
    shares = np.array([len(numbers) for numbers in grids.values()]) / len(scenes)
    while True:
        grid = list(grids)[int(rng.choice(len(grids), p=shares))]
        yield grid, rng.choice(grids[grid], count).tolist()


def things_of(sample: Sample) -> tuple[Thing, ...]:
    """The shapes of an easy scene, read from its phrases and masks."""
    found = []
    for phrase, mask in zip(sample.phrases, sample.masks, strict=True):
        words = phrase.text.split()
        rows, columns = np.nonzero(mask)
        x, y = columns.mean() + 0.5, rows.mean() + 0.5
        radius = float(np.hypot(columns + 0.5 - x, rows + 0.5 - y).max())
        dot = words[words.index("dot") - 1] if "dot" in words else ""
        found.append(Thing(words[1], words[2], dot, (float(x), float(y)), radius, 0.0))
    return tuple(found)


@dataclass(frozen=True)
class Drawn:
    """A scene before any model sees it."""

    image: Image.Image
    masks: Tensor
    things: tuple[Thing, ...]
    places: tuple[str, ...]


def draw(kind: str, seed: int, number: int) -> Drawn:
    """Draw one scene, `"easy"` or `"hard"`."""
    if kind == "hard":
        scene = HardScenes(1, seed=seed, first=number).scene(0)
        image, masks, things = scene.image, scene.masks, scene.things
    else:
        sample = Scenes(1, seed=seed, first=number)[0]
        image, masks, things = sample.image, sample.masks, things_of(sample)
    return Drawn(image, torch.from_numpy(masks).float(), things, tuple(place_words(mask) for mask in masks))


def pack(family: TinyFamily, drawn: Drawn) -> PackedScene:
    """A scene as the model of a family sees it."""
    pixels = family.resize(drawn.image)
    cover = F.adaptive_avg_pool2d(family.frame(drawn.masks), family.grid(pixels))
    return PackedScene(pixels, (cover * 255).round().byte(), drawn.things, drawn.places)


def _write_shards(kind: str, first: int, paths: Mapping[type[TinyFamily], Path]) -> None:
    torch.set_num_threads(1)
    families = [family() for family in paths]
    scenes = [draw(kind, TRAIN_SEED, first + index) for index in range(SHARD)]
    for family, path in zip(families, paths.values(), strict=True):
        torch.save([pack(family, drawn) for drawn in scenes], path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)


def write_scenes(families: Sequence[type[TinyFamily]], folder: Path) -> None:
    """Draw the scenes of the training that are not in a folder yet, by all processors."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = []
        for kind, first in SHARDS:
            paths = {family: _path(family, kind, first, folder) for family in families}
            if missing := {family: path for family, path in paths.items() if not path.exists()}:
                waiting.append(pool.submit(_write_shards, kind, first, missing))
        for done in waiting:
            done.result()


def packed(family: type[TinyFamily], folder: Path) -> Sequence[PackedScene]:
    """The scenes of the training, read from a folder."""
    # The shards are this script's own files, which hold more than tensors.
    return [
        scene for kind, first in SHARDS for scene in torch.load(_path(family, kind, first, folder), weights_only=False)
    ]


def _path(family: type[TinyFamily], kind: str, first: int, folder: Path) -> Path:
    return folder / f"{family.name}-{kind}-{TRAIN_SEED}-{first}.pt"
