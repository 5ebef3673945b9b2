"""Discovery: how a model of transformers lays an image of one size out in tokens, without code for its family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from vlm_adapters.discovery.blocks import NotFoundError
from vlm_adapters.discovery.pixels import PixelMap, map_pixels
from vlm_adapters.discovery.places import token_places
from vlm_adapters.discovery.proof import Proof, prove
from vlm_adapters.discovery.stock import StockProcessor
from vlm_adapters.discovery.structure import FoundGrid, find_grids
from vlm_adapters.discovery.vision import VisionSide
from vlm_adapters.geometry import Size

_MANY_CARRIERS = 40
_NEARLY_ALL, _HALF = 0.98, 0.5


@dataclass(frozen=True)
class Discovery:
    """What was found for one size of image.

    Attributes:
        size: `(H, W)` of the image.
        grids: Its grids, in the order of their tokens.
        image_token_ids: Ids of the tokens that are counted.
        proof: What held-out cells showed.
        passes: Passes of the vision side that it took.
        cell: Side of a cell, in pixels that the model reads.
    """

    size: Size
    grids: tuple[FoundGrid, ...]
    image_token_ids: tuple[int, ...]
    proof: Proof
    passes: int
    cell: int

    @property
    def score(self) -> float:
        """0 to 1: the weakest part of the evidence."""
        proof = self.proof
        return min(*(grid.explained for grid in self.grids), proof.alone, proof.in_model, proof.padding)

    @property
    def found(self) -> bool:
        """Whether the evidence is proof.

        Every held-out cell answers by itself, no cell in padding does, nearly all tokens lie in their cells, and in the
        model as it is, where every patch sees the others, at least half of the cells answer most.
        """
        proof = self.proof
        explained = min(grid.explained for grid in self.grids)
        return (
            proof.cells > 0
            and proof.alone == 1
            and min(explained, proof.padding) > _NEARLY_ALL
            and proof.in_model >= _HALF
        )

    @property
    def doubt(self) -> str:
        """What the evidence lacks, where it is not proof."""
        proof = self.proof
        return (
            f"Not proven: of {proof.cells} held-out cells {proof.alone:.0%} answer by themselves and "
            f"{proof.in_model:.0%} in the model, {proof.padding:.0%} of all show the image where they should."
        )


class Discoverer:
    """Finds the layouts of images for one model and its processor."""

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self.vision = VisionSide(model)
        self.process = StockProcessor(processor)

    def discover(self, size: Size, *, seed: int = 0) -> Discovery:
        """Find and prove the grids of images `(H, W)`.

        Raises:
            NotFoundError: The tokens form no grid.
            BackboneError: No token of the sequence shows the image.
        """
        before = self.vision.passes
        pixels = map_pixels(self.process, size)
        try:
            places = token_places(self.vision, pixels, seed=seed)
            grids = find_grids(places, size)
        except NotFoundError:  # trained towers answer to some patterns and not to others
            places = token_places(self.vision, pixels, seed=seed, carriers=_MANY_CARRIERS)
            grids = find_grids(places, size)
        proof = prove(self.vision, self.process, grids, places, size, seed=seed + 1)
        ids = tuple(sorted(set(places.ids[places.is_cell].tolist())))
        cell = _cell_side(pixels, sum(grid.tokens.size for grid in grids))
        return Discovery(size, grids, ids, proof, self.vision.passes - before, cell)


def _cell_side(pixels: PixelMap, cells: int) -> int:
    """Side of a cell in pixels, from how many there are; processors of video give every one twice."""
    first = next(iter(pixels.scale.values()))
    count = first.numel() / 3 / cells
    if first.ndim == 2 and abs(math.sqrt(count) % 1) > 1e-6:  # lines of patches
        count /= 2
    return max(round(math.sqrt(count)), 1)
