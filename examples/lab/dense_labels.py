"""What the vision tower learns to say at every image token, from the truth masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from packed_scenes import PackedScene, by_grid
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from torch.utils.data import IterableDataset

from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES
from vlm_adapters.data.formats.things import TEXTURES, Thing

REACH = 3
IGNORED = -100
WORDS = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "dot": ("", *DOTS),
    "texture": ("", *TEXTURES),
}
CLASSES = tuple(len(words) + 1 for words in WORDS.values())
BINS = 16
"""Parts of a side: where an image token is."""
AROUND = (2 * REACH + 1) ** 2
OWNED = 0.5
"""Share of a cell that one thing, or the ground, must cover for the cell to be its."""


@dataclass(frozen=True)
class VisionBatch:
    """Scenes of one size, and what the tower is to say at every image token.

    Attributes:
        pixels: `(B, 3, H, W)` uint8, before it is normalised.
        grid: Rows and columns of the image's tokens.
        classes: `(B, 4, h * w)` of colour, shape, dot and texture, or `IGNORED`; the last class of each is "none".
        around: `(B, h * w, AROUND)` how much of the cells around a cell its thing covers; `IGNORED` on the ground.
        sizes: `(B, h * w)` logarithm of the thing's radius.
    """

    pixels: Tensor
    grid: tuple[int, int]
    classes: Tensor
    around: Tensor
    sizes: Tensor


class VisionBatches(IterableDataset[VisionBatch]):
    """Endless batches of scenes of one grid.

    Args:
        scenes: To see.
        images: How many make a batch.
        seed: Of the choices; every worker has its own.
    """

    def __init__(self, scenes: Sequence[PackedScene], images: int, seed: int) -> None:
        self._scenes, self._images, self._seed = scenes, images, seed

    def __iter__(self) -> Iterator[VisionBatch]:
        """Draw a grid by how many scenes have it, then scenes."""
        for grid, numbers in by_grid(self._scenes, self._images, self._seed):
            scenes = [self._scenes[number] for number in numbers]
            labels = (torch.stack(column) for column in zip(*map(dense_labels, scenes), strict=True))
            yield VisionBatch(torch.stack([scene.pixels for scene in scenes]), grid, *labels)


class DenseHead(nn.Linear):
    """Reads colour, shape, dot, texture, the cells around, the size and the place at every image token, in training."""

    def __init__(self, width: int) -> None:
        super().__init__(width, sum(CLASSES) + AROUND + 1 + 2 * BINS)

    def losses(self, features: Tensor, batch: VisionBatch) -> tuple[Tensor, Tensor]:
        """The loss over a batch of features `(B, h * w, D)`, and the share of shapes that are named rightly."""
        logits = self(features).float()
        *names, around, size, place = logits.split((*CLASSES, AROUND, 1, 2 * BINS), -1)
        classes = batch.classes
        loss = logits.new_zeros(())
        for weight, kind, found in zip((1, 2, 1, 1), range(len(names)), names, strict=True):
            loss = loss + weight * F.cross_entropy(
                found.flatten(0, 1), classes[:, kind].flatten(), ignore_index=IGNORED
            )
        owned = batch.around[..., 0] != IGNORED
        loss = loss + 2 * F.binary_cross_entropy_with_logits(around[owned], batch.around[owned])
        loss = loss + place_loss(place, batch.grid)
        loss = loss + F.smooth_l1_loss(size[owned][:, 0], batch.sizes[owned])
        shaped = (classes[:, 1] >= 0) & (classes[:, 1] < len(SHAPES))
        right = (names[1].argmax(-1) == classes[:, 1])[shaped].float().mean()
        return loss, right


def dense_labels(scene: PackedScene) -> tuple[Tensor, Tensor, Tensor]:
    """Classes `(4, h * w)`, covers of the cells around `(h * w, AROUND)` and logarithms of radii `(h * w,)`."""
    cover = scene.cover.float() / 255
    share, owner = torch.cat([cover.flatten(1), 1 - cover.sum(0).clamp(max=1).view(1, -1)]).max(0)
    ground = tuple(len(words) for words in WORDS.values())
    classes = torch.tensor([*map(class_indices, scene.things), ground]).T
    around = F.unfold(cover[:, None], 2 * REACH + 1, padding=REACH)
    around = torch.cat([around, torch.full_like(around[:1], IGNORED)])[owner, :, torch.arange(len(owner))]
    sizes = torch.tensor([*(_log_radius(thing) for thing in scene.things), 0.0])[owner]
    return torch.where(share > OWNED, classes[:, owner], IGNORED), around, sizes


def place_loss(logits: Tensor, grid: Sequence[int]) -> Tensor:
    """Cross entropy of logits `(B, h * w, 2 * BINS)` of the row and the column of every image token."""
    rows, columns = (torch.arange(count) * BINS // count for count in grid)
    own = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    return F.cross_entropy(logits.float().unflatten(-1, (2, BINS)).flatten(0, -2), own.repeat(len(logits), 1).flatten())


def class_indices(thing: Thing) -> tuple[int, ...]:
    """The class of a thing for every kind of `WORDS`."""
    return tuple(words.index(getattr(thing, kind)) for kind, words in WORDS.items())


def _log_radius(thing: Thing) -> float:
    return math.log(thing.radius / 40)
