"""From the grids of a picture to the channels that a decoder reads, and to the map that people are shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vlm_adapters.backbone import Grids, place_map
from vlm_adapters.decoder.unet import normalise
from vlm_adapters.errors import DecoderError

AGREEING_HEADS = 4
"""How many heads the map of a grounded phrase shows: the mean over all is led by those that look at everything."""


def stack_channels(extracted: Sequence[Grids]) -> tuple[Tensor, tuple[float, float, float, float]]:
    """Stack the maps of all grids of one picture as channels over its last, finest grid.

    The other grids' maps are resampled bilinearly onto the cells of the finest, by where both stand in the picture.

    Args:
        extracted: Of one picture, in the adapter's order.

    Returns:
        `(P, C, h, w)` and the box that the finest grid covers.

    Raises:
        DecoderError: The prompt's picture has no grid.
    """
    if not extracted:
        raise DecoderError("There are no grids for the picture. Extract them with an adapter that locates its tokens.")
    finest = extracted[-1].grid
    left, top, right, bottom = finest.cell_box(0, 0)
    width, height = right - left, bottom - top
    channels = []
    for grids in extracted:
        x0, y0, x1, y1 = grids.grid.box
        in_cells = ((x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height)
        same = grids.grid.box == finest.box and grids.grid.shape == finest.shape
        channels.append(grids.channels if same else place_map(grids.channels, in_cells, finest.shape))
    return torch.cat(channels, dim=1), finest.box


def agreeing_maps(maps: Tensor, probabilities: Tensor) -> Tensor:
    """One map per phrase: the mean of the few attention maps that lie most on its mask, each divided by its sum.

    Args:
        maps: `(P, C, h, w)` attention, not negative.
        probabilities: `(P, h', w')` of the mask, in [0, 1], over the same region.

    Returns:
        `(P, h, w)` float32, not negative.
    """
    shares = normalise(maps)
    pooled = functional.adaptive_avg_pool2d(probabilities.float()[:, None], (shares.shape[2], shares.shape[3]))
    agreement = (shares * pooled).sum(dim=(2, 3))
    best = agreement.topk(min(AGREEING_HEADS, shares.shape[1]), dim=1).indices
    return shares.gather(1, best[:, :, None, None].expand(-1, -1, *shares.shape[-2:])).mean(dim=1)
