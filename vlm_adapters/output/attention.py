"""Attention maps for people: where a phrase looks in an image, by layer and by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.geometry import place_map, resize_box
from vlm_adapters.heads.ranking import RankedHead
from vlm_adapters.output.figures import heat_sheet
from vlm_adapters.output.render import shrunk
from vlm_adapters.prompt import Prompt


def attention_sheet(prompt: Prompt, grids: Grids, phrase: int, sharpest: Sequence[RankedHead]) -> Image.Image:
    """Draw the attention of a phrase: a heat map per layer, and one per head of those that look most sharply.

    Args:
        prompt: The prompt.
        grids: What was extracted for it on one grid, one map per phrase.
        phrase: Index of the phrase.
        sharpest: The heads to show, as `rank_heads` returns them.
    """
    image, words = prompt.images[grids.grid.image], prompt.phrases[phrase].text
    small = shrunk(image)
    box = resize_box(grids.grid.box, (image.height, image.width), (small.height, small.width))
    seen = replace(grids, grid=replace(grids.grid, box=box))  # on the image as it is painted
    size = small.height, small.width
    by_layer = [(f"layer {layer}", attention_map(seen, phrase, size, layer)) for layer in grids.layers]
    by_head = [
        (f"layer {ranked.layer} head {ranked.head}", attention_map(seen, phrase, size, ranked.layer, ranked.head))
        for ranked in sharpest
    ]
    return heat_sheet(
        small, [(f"{words}: mean of all heads, by layer", by_layer), (f"{words}: sharpest heads", by_head)]
    )


def attention_map(
    grids: Grids, phrase: int, size: tuple[int, int], layer: int, head: int | None = None
) -> NDArray[np.float32]:
    """Place the attention map of a phrase over its image, scaled to a peak of 1.

    Args:
        grids: What was extracted, one map per phrase.
        phrase: Index of the phrase.
        size: `(H, W)` of the image.
        layer: True layer index.
        head: Head index; None averages all heads of the layer.

    Returns:
        `(H, W)` float32 in [0, 1].
    """
    maps = grids.attention[phrase, grids.layers.index(layer)]
    chosen = maps.mean(0) if head is None else maps[grids.heads.index(head)]
    placed: NDArray[np.float32] = place_map(chosen, grids.grid.box, size).cpu().numpy()
    return placed / max(float(placed.max()), 1e-12)
