"""Heads ranked by how sharply they look at the image, for people to see; needs no training and no labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids


@dataclass(frozen=True)
class RankedHead:
    """A head, and how sharply it looks at the image for one phrase.

    Attributes:
        layer: True layer index.
        head: Head index.
        mass: Share of the row's attention that falls on the image, in [0, 1].
        entropy: Entropy of the map over its cells, divided by that of an even map: 0 for one cell, 1 for an even map.
    """

    layer: int
    head: int
    mass: float
    entropy: float


def spatial_entropy(maps: Tensor) -> Tensor:
    """Entropy of maps `(..., h, w)` over their cells, in [0, 1]: 0 for one cell, 1 for an even or an empty map."""
    flat = maps.float().flatten(-2)
    share = flat / flat.sum(-1, keepdim=True).clamp(min=1e-12)
    entropy = torch.special.entr(share).sum(-1) / torch.log(torch.tensor(float(max(flat.shape[-1], 2))))
    return torch.where(flat.sum(-1) > 0, entropy, torch.ones_like(entropy))


# Differs from the label-free ranking of `calibrate`, which measures into how many parts maps fall (`part_entropy`) over
# many images and beside a neutral sentence: here there is one map as it is, and no second pass is spent on it.
def rank_heads(grids: Grids, phrase: int, count: int) -> list[RankedHead]:
    """Rank the heads by how sharply they look at the image for one phrase.

    Heads with less attention on the image than the median are left out; the others are sorted by the entropy of their
    map, sharpest first.

    Args:
        grids: Extracted maps, one per phrase.
        phrase: Index of the phrase.
        count: Largest number of heads to return.
    """
    maps = grids.attention[phrase]
    mass, entropy = maps.sum((-2, -1)).flatten(), spatial_entropy(maps).flatten()
    looking = mass >= mass.quantile(0.5)
    order = torch.where(looking, entropy, torch.full_like(entropy, 2.0)).argsort()[: min(count, int(looking.sum()))]
    heads = len(grids.heads)
    return [
        RankedHead(grids.layers[i // heads], grids.heads[i % heads], float(mass[i]), float(entropy[i]))
        for i in order.tolist()
    ]
