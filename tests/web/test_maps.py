"""Kept maps: which value stands where, and at which pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.errors import NoGridError
from vlm_adapters.heads.attention import AttentionMaps, Reliability, attention_maps
from vlm_adapters.heads.ranking import RankedHead
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.web.maps import KeptMaps

if TYPE_CHECKING:
    from PIL import Image

    from vlm_adapters.backbone.protocol import BackboneAdapter

TEXT = "a red square and a green square"


def maps_of(values: torch.Tensor, grid: ImageGrid) -> AttentionMaps:
    """Maps `(1, L, n, h, w)` of layers 3, 5, ... and heads 0, 1, ..."""
    layers, heads = tuple(range(3, 3 + 2 * values.shape[1], 2)), tuple(range(values.shape[2]))
    ranking = tuple(RankedHead(layer, head, 1.0, 1.0, 0.0) for layer in layers for head in heads)
    sinks = torch.zeros(grid.shape, dtype=torch.bool)
    phrases = (Phrase("a", 0, 1),)
    return AttentionMaps(
        grid=grid,
        phrases=phrases,
        maps=values,
        raw=False,
        layers=layers,
        heads=heads,
        sinks=sinks,
        ranking=(ranking,),
        reliability=(Reliability(1, 0, 1),),
    )


GRID = ImageGrid(torch.arange(6).view(2, 3), (-10, 0, 50, 40))
"""Cells of 20 x 20 pixels; the first column begins 10 pixels left of the image."""


def test_the_map_of_a_layer_and_head_is_theirs_scaled_to_its_peak() -> None:
    values = torch.rand(1, 2, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    kept = KeptMaps.of(maps_of(values, GRID))
    expected = values[0, 1, 2].numpy()
    assert np.abs(kept.of_phrase(0, layer=5, head=2) - expected / expected.max()).max() <= 0.5 / 255 + 1e-6
    mean = values[0, 1].numpy().mean(axis=0)
    assert np.abs(kept.of_phrase(0, layer=5) - mean / mean.max()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(("layer", "head"), [(4, 0), (3, 4)])
def test_a_layer_or_head_that_is_not_there_is_an_error(layer: int, head: int) -> None:
    kept = KeptMaps.of(maps_of(torch.rand(1, 2, 4, 2, 3), GRID))
    with pytest.raises(ValueError, match="not in tuple"):
        kept.of_phrase(0, layer, head)


@pytest.mark.parametrize(
    ("x", "y", "row", "column"), [(0.5, 0.5, 0, 0), (9.5, 19.5, 0, 0), (10.5, 20.5, 1, 1), (49.5, 39.5, 1, 2)]
)
def test_a_pixel_is_in_the_cell_that_covers_it(x: float, y: float, row: int, column: int) -> None:
    kept = KeptMaps.of(maps_of(torch.rand(1, 1, 1, 2, 3), GRID))
    assert kept.at_pixel(x, y) == kept.together[:, row, column]


@pytest.mark.parametrize(("x", "y"), [(50.5, 10.5), (10.5, 40.5)])
def test_nothing_looks_where_the_grid_does_not_reach(x: float, y: float) -> None:
    assert KeptMaps.of(maps_of(torch.rand(1, 1, 1, 2, 3), GRID)).at_pixel(x, y).tolist() == [0]


def test_a_phrase_looks_at_the_pixels_of_its_thing(planted: BackboneAdapter, square_image: Image.Image) -> None:
    prompt = Prompt.describe(square_image, TEXT, ["a red square", "a green square"])
    kept = KeptMaps.of(attention_maps(planted, [prompt])[0][0])
    pixels = np.asarray(square_image)
    for channel in (0, 1):
        row, column = np.unravel_index(kept.together[channel].argmax(), kept.together.shape[1:])
        assert pixels[row * 10 + 5, column * 10 + 5, channel] == 255


def test_a_model_whose_tokens_have_no_places_has_no_maps() -> None:
    with pytest.raises(NoGridError, match="no places"):
        KeptMaps.of(maps_of(torch.rand(1, 1, 1, 2, 3), ImageGrid(torch.arange(6).view(2, 3), None)))
