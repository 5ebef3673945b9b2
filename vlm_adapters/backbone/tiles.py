"""Images cut into tiles of one size, often beside an overview: the image squashed to one tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.geometry import Size


def tiled_layouts(
    image: Size,
    tile: Size,
    cells: Size,
    tiles: Size,
    *,
    resized: Size | None = None,
    overview_first: bool = False,
) -> list[ImageLayout]:
    """Lay an image out in tiles; if there are several, an overview is added.

    Args:
        image: `(H, W)` of the upright image.
        tile: `(height, width)` of a tile, in pixels.
        cells: Number of cells of a tile, `(h, w)`.
        tiles: Number of tiles, `(rows, columns)`.
        resized: `(height, width)` of the resized image where the rest of the tiles, at their right and bottom, is
            padding; without it, the image is squashed to fill them.
        overview_first: Whether the tokens of the overview come before those of the tiles.

    Examples:
        >>> from vlm_adapters.backbone import tiled_layouts
        >>> fine, overview = tiled_layouts((480, 640), tile=(448, 448), cells=(16, 16), tiles=(3, 4))
        >>> fine.canvas, fine.cells, overview.cells
        ((1344, 1792), (48, 64), (16, 16))
    """
    canvas = tiles[0] * tile[0], tiles[1] * tile[1]
    shape = tiles[0] * cells[0], tiles[1] * cells[1]
    fine = ImageLayout(image, resized or canvas, canvas, shape, tiles=tiles)
    if prod(tiles) == 1:
        return [fine]
    overview = ImageLayout(image, tile, tile, cells, name="overview")
    return [overview, fine] if overview_first else [fine, overview]


def select_tiles(
    features: Mapping[str, Tensor], indices: Sequence[int], layouts: Sequence[Sequence[ImageLayout]]
) -> dict[str, Tensor]:
    """Choose images of tensors that have a line per tile, one image after another.

    Args:
        features: The tensors of all images.
        indices: Which images are chosen; they may repeat.
        layouts: The layouts of all images.
    """
    counts = [sum(prod(layout.tiles) for layout in of_image) for of_image in layouts]
    by_image = {name: tensor.split(counts) for name, tensor in features.items()}
    return {name: torch.cat([parts[index] for index in indices]) for name, parts in by_image.items()}
