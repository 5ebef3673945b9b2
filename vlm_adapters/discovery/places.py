"""Where every token of an image looks, from a few passes of the vision side with small changes of the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vlm_adapters.discovery.pixels import PixelMap, with_pixels
from vlm_adapters.discovery.vision import VisionSide

_STEP = 0.002
"""Share of the range from black to white by which pixels change: small, so that responses add up."""
_NOISE = 0.05
"""The same for the grey image that is changed: not flat, since some towers make nothing of that."""


@dataclass(frozen=True)
class TokenPlaces:
    """What the tokens of one image's expansion show.

    Attributes:
        ids: `(S,)` token ids.
        is_cell: `(S,)` whether a token depends on pixels, those of padding included.
        known: `(S,)` share of its pixels whose place is known, 0 to 1.
        x: `(S,)` middle of what it shows, in pixels of the image; only where `known` is above 0.
        y: `(S,)` as `x`, downwards.
        spread: `(S, 2)` how far from the middle its pixels lie, along x and y, as a standard deviation.
    """

    ids: np.ndarray
    is_cell: np.ndarray
    known: np.ndarray
    x: np.ndarray
    y: np.ndarray
    spread: np.ndarray


def token_places(vision: VisionSide, pixels: PixelMap, *, carriers: int = 6, seed: int = 0) -> TokenPlaces:
    """Measure where the tokens of an image look.

    Args:
        vision: The vision side of the model.
        pixels: Places of the pixels.
        carriers: Number of patterns that the pixels change by.
        seed: Seed of the patterns.
    """
    random = torch.Generator().manual_seed(seed)
    base_pixels = {path: _at(pixels.features, path) for path in pixels.scale}
    sums: dict[str, Tensor] = {}
    for _ in range(carriers):
        base = {
            path: value + pixels.scale[path] * _NOISE * torch.randn(value.shape, generator=random)
            for path, value in base_pixels.items()
        }

        def response(weights: dict[str, Tensor], base: dict[str, Tensor] = base) -> Tensor:
            ahead, behind = (
                {path: base[path] + step * pixels.scale[path] * weights[path] for path in base}
                for step in (_STEP, -_STEP)
            )
            ends = [vision.embeddings(with_pixels(pixels.features, end), quiet=True) for end in (ahead, behind)]
            return (ends[0] - ends[1]).double()

        carrier = {path: torch.randn(value.shape, generator=random) for path, value in base_pixels.items()}
        known = {path: carrier[path] * pixels.known[path] for path in carrier}
        every, shown = response(carrier), response(known)
        moved = [
            response({path: known[path] * (pixels.places[path][axis] / pixels.size[1 - axis] - 0.5) for path in known})
            for axis in (0, 1)
        ]
        energy = shown.square().sum(-1)
        terms = {"every": every.square().sum(-1), "shown": energy}
        for name, along in zip("xy", moved, strict=True):
            terms[name] = (along * shown).sum(-1)
            terms[f"{name}{name}"] = along.square().sum(-1)
        for name, value in terms.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    return _summary(pixels, sums)


def _summary(pixels: PixelMap, sums: dict[str, Tensor]) -> TokenPlaces:
    every, shown = sums["every"], sums["shown"]
    is_cell = every > 1e-8 * every.max().clamp_min(1e-30)
    divisor = shown.clamp_min(1e-30)
    height, width = pixels.size
    x, y = sums["x"] / divisor, sums["y"] / divisor
    spread = [(sums[f"{name}{name}"] / divisor - at.square()).clamp_min(0).sqrt() for name, at in (("x", x), ("y", y))]
    return TokenPlaces(
        ids=pixels.features["input_ids"][0].numpy(),
        is_cell=is_cell.numpy(),
        known=torch.where(is_cell, (shown / every.clamp_min(1e-30)).sqrt(), 0).clamp(0, 1).numpy(),
        x=((x + 0.5) * width).numpy(),
        y=((y + 0.5) * height).numpy(),
        spread=torch.stack([spread[0] * width, spread[1] * height], dim=-1).numpy(),
    )


def _at(features: object, path: str) -> Tensor:
    value = features
    for step in path.split("/"):
        value = value[int(step) if isinstance(value, list | tuple) else step]  # type: ignore[index]
    return cast("Tensor", value)
