"""The one ranking of heads: those that follow phrases come first, however sharp the others are.

A head follows a phrase if its map moves with it: what the phrase adds to the maps of the other phrases and of a neutral
sentence is found in the same place when the same thing is asked again in another way. A head that looks at a corner
whatever is asked, and one that looks everywhere, add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_adapters.decoder.unet import normalise
from vlm_adapters.heads.maps import smooth

SMOOTHING = 1.0
"""Standard deviation of the Gaussian that smooths maps, in cells."""

SHARPENING = 4
"""Power of a head's following that is its weight in a mean of maps: the best heads lead it."""

FULL_DIFFERENCE = 0.02
"""Share of a head's attention that must depend on the text for the head to follow it fully."""

_LEAST_CONTRAST = 1e-4
"""Standard deviation of what a phrase adds, in even shares of a map, below which it adds nothing but rounding."""


@dataclass(frozen=True)
class RankedHead:
    """A head, and how well it follows a phrase.

    Attributes:
        layer: True layer index.
        head: Head index.
        following: Agreement of what the phrase adds to the head's map when it is asked in two ways, in [-1, 1]: 1 if it
            is in the same places, 0 if it is nowhere or anywhere.
        mass: Share of the row's attention that falls on the image, in [0, 1].
        on_sinks: Share of its attention on the image that falls on sinks, in [0, 1].
    """

    layer: int
    head: int
    following: float
    mass: float
    on_sinks: float

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


def contrast(relative: Tensor, neutral: Tensor) -> Tensor:
    """What each phrase adds: its smoothed map less the mean over all phrases and the neutral sentence.

    Args:
        relative: `(P, C, h, w)` of `relative_maps`.
        neutral: `(C, h, w)`, the map of the neutral sentence relative to itself.

    Returns:
        `(P, C, h, w)` float32.
    """
    maps = smooth(torch.cat([relative, neutral[None]]).float(), SMOOTHING)
    return maps[:-1] - maps.mean(dim=0)


def difference(maps: Tensor, neutral: Tensor) -> Tensor:
    """Measure how much of each map depends on the text: the share of its attention that is elsewhere.

    Args:
        maps: `(P, C, h, w)` attention, not negative, of any scale.
        neutral: `(C, h, w)`, the same heads for the neutral sentence.

    Returns:
        `(P, C)` in [0, 1]: 0 where a head looks at the same cells, 1 where it looks at none of them.
    """
    return (normalise(maps) - normalise(neutral[None])).abs().sum(dim=(2, 3)) / 2


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Correlate what phrases add to maps when they are asked in two ways.

    Args:
        first: `(P, C, h, w)` of `contrast`.
        second: The same for the same phrases on the same cells, asked in another way.

    Returns:
        `(P, C)` in [-1, 1]: 1 in the same places; 0 where a phrase adds nothing.
    """
    one, other = ((maps.flatten(2) - maps.flatten(2).mean(dim=2, keepdim=True)) for maps in (first, second))
    spread = (one.square().mean(dim=2) * other.square().mean(dim=2)).sqrt()
    correlation = (one * other).mean(dim=2) / spread.clamp(min=_LEAST_CONTRAST**2)
    return torch.where(spread > _LEAST_CONTRAST**2, correlation, torch.zeros_like(correlation)).clamp(-1, 1)


def following(agreements: Tensor, differences: Tensor) -> Tensor:
    """Measure how well heads follow phrases: their agreement, less where hardly any attention depends on the text.

    Args:
        agreements: `(P, C)` of `agreement`.
        differences: `(P, C)` of `difference`.

    Returns:
        `(P, C)` in [-1, 1].
    """
    return agreements * (differences / FULL_DIFFERENCE).clamp(max=1)


def best_first(scores: Tensor) -> list[int]:
    """Order heads by how well they follow, `(C,)` of `following`; equals keep their order."""
    return [int(index) for index in scores.argsort(descending=True, stable=True)]


def following_weights(scores: Iterable[float]) -> list[float]:
    """Weights of heads in a mean of their maps, by how well they follow; small but positive where they do not."""
    return [max(float(score), 1e-3) ** SHARPENING for score in scores]
