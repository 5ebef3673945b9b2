"""The maps of all layers and heads for the phrases of a sentence, small enough to be kept while somebody looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_adapters.errors import NoGridError
from vlm_adapters.geometry import Box
from vlm_adapters.heads.attention import AttentionMaps, Reliability
from vlm_adapters.heads.ranking import RankedHead

SHOWN_HEADS = 6
"""How many of the heads that follow a phrase best are named."""


@dataclass(frozen=True)
class KeptMaps:
    """Where the phrases look on the finest grid of an image; see `AttentionMaps`, of which these are copies.

    Attributes:
        box: `(left, top, right, bottom)` that the cells divide evenly, in pixels of the image.
        together: `(P, h, w)` float32 in [0, 1]: where all heads look that follow a phrase best.
        by_head: `(P, L, n, h, w)` uint8: each head's map, 255 at its peak.
        by_layer: `(P, L, h, w)` uint8: the mean of a layer's heads, 255 at its peak.
        layers: True layer index of every entry of axis `L`.
        heads: Head index of every entry of axis `n`.
        best: For every phrase the heads that follow it best.
        reliability: For every phrase, how far its map can be trusted.
    """

    box: Box
    together: NDArray[np.float32] = field(repr=False)
    by_head: NDArray[np.uint8] = field(repr=False)
    by_layer: NDArray[np.uint8] = field(repr=False)
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    best: tuple[tuple[RankedHead, ...], ...]
    reliability: tuple[Reliability, ...]

    @classmethod
    def of(cls, maps: AttentionMaps) -> Self:
        """Copy the maps of one grid.

        Raises:
            NoGridError: The image tokens have no places in the image.
        """
        if maps.grid.box is None:
            raise NoGridError
        evenly = maps.grid.evenly
        phrases = range(len(maps.phrases))
        return cls(
            box=maps.grid.box,
            together=torch.stack([evenly(maps.together(phrase)) for phrase in phrases]).cpu().numpy(),
            by_head=np.stack([_bytes(evenly(maps.maps[phrase])) for phrase in phrases]),
            by_layer=np.stack([_bytes(evenly(maps.maps[phrase].mean(dim=1))) for phrase in phrases]),
            layers=maps.layers,
            heads=maps.heads,
            best=tuple(ranking[:SHOWN_HEADS] for ranking in maps.ranking),
            reliability=maps.reliability,
        )

    @property
    def cell(self) -> tuple[float, float]:
        """Height and width of a cell, in pixels of the image."""
        left, top, right, bottom = self.box
        h, w = self.together.shape[1:]
        return (bottom - top) / h, (right - left) / w

    @property
    def nbytes(self) -> int:
        """Memory that the maps take."""
        return self.together.nbytes + self.by_head.nbytes + self.by_layer.nbytes

    def of_phrase(self, phrase: int, layer: int | None = None, head: int | None = None) -> NDArray[np.float32]:
        """One map `(h, w)` in [0, 1].

        Args:
            phrase: Index of the phrase.
            layer: True layer index; None for the heads that follow the phrase best, together.
            head: Head index; None for the mean of the layer's heads.

        Raises:
            ValueError: There is no such layer or head.
        """
        found: NDArray[np.float32]
        if layer is None:
            found = self.together[phrase]
            return found
        at = self.layers.index(layer)
        levels = self.by_layer[phrase, at] if head is None else self.by_head[phrase, at, self.heads.index(head)]
        found = levels.astype(np.float32) / np.float32(255)
        return found

    def at_pixel(self, x: float, y: float) -> NDArray[np.float32]:
        """How high the map of every phrase is at a pixel: `(P,)` in [0, 1]; 0 where the grid does not reach.

        Args:
            x: Column, in pixels from the left of the image.
            y: Row, in pixels from its top.
        """
        height, width = self.cell
        row, column = floor((y - self.box[1]) / height), floor((x - self.box[0]) / width)
        if not (0 <= row < self.together.shape[1] and 0 <= column < self.together.shape[2]):
            return np.zeros(len(self.together), np.float32)
        found: NDArray[np.float32] = self.together[:, row, column]
        return found


def _bytes(maps: Tensor) -> NDArray[np.uint8]:
    """Maps `(..., h, w)`, each scaled to 255 at its peak."""
    peaks = maps.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    scaled: NDArray[np.uint8] = (maps / peaks * 255).round().to(torch.uint8).cpu().numpy()
    return scaled
