"""From the grids of an image to the channels that a decoder reads, and to the map that people are shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.backbone.request import Head
from vlm_adapters.decoder.unet import normalise
from vlm_adapters.errors import DecoderError, NoGridError
from vlm_adapters.geometry import Box, place_map

AGREEING_HEADS = 4
"""How many heads the map of a grounded phrase shows: the mean over all is led by those that look at everything."""


_PHRASES_AT_ONCE = 16
"""Number of phrases whose maps are compared at once: they are copied for it, and a large model has a thousand each."""


def stack_channels(
    extracted: Sequence[Grids], heads: Sequence[Head] | None = None, names: Sequence[str] | None = None
) -> tuple[Tensor, Box]:
    """Stack the maps of the grids of one image as channels over its last, finest grid.

    The other grids' maps are resampled bilinearly onto the cells of the finest, by where both stand in the image. Cells
    of the finest that do not divide its box evenly are resampled to some that do.

    Args:
        extracted: Grids of one image, in the adapter's order.
        heads: Heads whose maps are stacked, in this order; None takes all, channel = layer * n + head.
        names: Grids that are stacked, in this order, the finest in the place of one that the image lacks; None takes
            those of the image.

    Returns:
        `(P, C, h, w)` and the box that the finest grid covers.

    Raises:
        DecoderError: The prompt's image has no grid, or a head was not extracted.
        NoGridError: The image's tokens have no places in it.
    """
    if not extracted:
        raise DecoderError("There are no grids for the image. Extract them with an adapter that locates its tokens.")
    finest = extracted[-1].grid
    if finest.box is None:
        raise NoGridError
    by_name = {grids.grid.name: grids for grids in extracted}
    chosen = extracted if names is None else [by_name.get(name, extracted[-1]) for name in names]
    channels = [_on_cells(_maps_of(grids, heads), grids.grid, finest, finest.box) for grids in chosen]
    return channels[0] if len(channels) == 1 else torch.cat(channels, dim=1), finest.box


def _on_cells(maps: Tensor, grid: ImageGrid, finest: ImageGrid, box: Box) -> Tensor:
    """Maps `(P, C, h, w)` of a grid on as many cells as the finest has, which divide its box evenly."""
    if grid.box is None:
        raise NoGridError
    maps = grid.evenly(maps)
    if grid.box == box and grid.shape == finest.shape:
        return maps
    height, width = (box[3] - box[1]) / finest.shape[0], (box[2] - box[0]) / finest.shape[1]
    x0, y0, x1, y1 = grid.box
    in_cells = ((x0 - box[0]) / width, (y0 - box[1]) / height, (x1 - box[0]) / width, (y1 - box[1]) / height)
    return place_map(maps, in_cells, finest.shape)


def _maps_of(grids: Grids, heads: Sequence[Head] | None) -> Tensor:
    """`(P, C, h, w)`."""
    if heads is None:
        return grids.channels
    if missing := [f"{layer}.{head}" for layer, head in heads if layer not in grids.layers or head not in grids.heads]:
        raise DecoderError(
            f"The heads {', '.join(missing)} (layer.head) were not extracted. Request their layers and heads."
        )
    chosen = [grids.layers.index(layer) * len(grids.heads) + grids.heads.index(head) for layer, head in heads]
    return grids.channels[:, chosen]


def agreeing_maps(maps: Tensor, probabilities: Tensor) -> Tensor:
    """One map per phrase: the mean of the few attention maps that lie most on its mask, each divided by its sum.

    Args:
        maps: `(P, C, h, w)` attention, not negative.
        probabilities: `(P, h', w')` of the mask, in [0, 1], over the same region.

    Returns:
        `(P, h, w)` float32, not negative.
    """
    some = zip(maps.split(_PHRASES_AT_ONCE), probabilities.split(_PHRASES_AT_ONCE), strict=True)
    return torch.cat([_agreeing_maps(*of_some) for of_some in some])


def _agreeing_maps(maps: Tensor, probabilities: Tensor) -> Tensor:
    shares = normalise(maps)
    pooled = functional.adaptive_avg_pool2d(probabilities.float()[:, None], (shares.shape[2], shares.shape[3]))
    agreement = (shares * pooled).sum(dim=(2, 3))
    best = agreement.topk(min(AGREEING_HEADS, shares.shape[1]), dim=1).indices
    return shares.gather(1, best[:, :, None, None].expand(-1, -1, *shares.shape[-2:])).mean(dim=1)
