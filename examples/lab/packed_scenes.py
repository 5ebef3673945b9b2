"""Scenes of both kinds, drawn once for training: resized images, what covers every cell, and the things in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tiny_family import TinyFamily
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows

from vlm_adapters.data.formats.hard_scenes import HardScenes
from vlm_adapters.data.formats.scenes import Scenes, place_words
from vlm_adapters.data.formats.things import Thing
from vlm_adapters.data.sample import Sample

SHARD = 500


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


def pack(family: TinyFamily, kind: str, seed: int, number: int) -> PackedScene:
    """Draw one scene, `"easy"` or `"hard"`."""
    if kind == "hard":
        scene = HardScenes(1, seed=seed, first=number).scene(0)
        image, masks, things = scene.image, scene.masks, scene.things
    else:
        sample = Scenes(1, seed=seed, first=number)[0]
        image, masks, things = sample.image, sample.masks, things_of(sample)
    pixels = family.resize(image)
    framed = family.frame(torch.from_numpy(masks).float())
    cover = F.adaptive_avg_pool2d(framed, family.grid(pixels))
    places = tuple(place_words(mask) for mask in masks)
    return PackedScene(pixels, (cover * 255).round().byte(), things, places)


def _write_shard(family: type[TinyFamily], kind: str, seed: int, first: int, path: Path) -> None:
    torch.set_num_threads(1)
    made = family()
    scenes = [pack(made, kind, seed, first + index) for index in range(SHARD)]
    torch.save(scenes, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def packed(family: type[TinyFamily], kind: str, seed: int, count: int, folder: Path) -> Sequence[PackedScene]:
    """Scenes from a folder; those that are not there yet are drawn by all processors."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {first: folder / f"{family.name}-{kind}-{seed}-{first}.pt" for first in range(0, count, SHARD)}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        missing = [(first, path) for first, path in paths.items() if not path.exists()]
        for done in [pool.submit(_write_shard, family, kind, seed, *item) for item in missing]:
            done.result()
    # The shards are this script's own files, which hold more than tensors.
    return [scene for path in paths.values() for scene in torch.load(path, weights_only=False)][:count]
