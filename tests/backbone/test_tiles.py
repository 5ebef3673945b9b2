"""Layouts of images in tiles beside an overview, and the tensors of their tiles."""

from __future__ import annotations

import pytest
import torch

from vlm_adapters.backbone import select_tiles, tiled_layouts
from vlm_adapters.backbone.layout import place_layouts

NAMES = ("overview", "fine")


@pytest.mark.parametrize("overview_first", [True, False])
def test_the_tokens_come_tile_after_tile_and_the_grids_by_name(overview_first: bool) -> None:  # noqa: FBT001
    layouts = tiled_layouts((40, 90), (20, 30), (1, 2), (2, 3), overview_first=overview_first)
    overview, fine = place_layouts(layouts, torch.arange(14), 0, NAMES)
    start = 2 if overview_first else 0
    assert fine.tokens.tolist() == [
        [start + index for index in (0, 1, 2, 3, 4, 5)],
        [start + index for index in (6, 7, 8, 9, 10, 11)],
    ]
    assert overview.tokens.tolist() == [[0, 1] if overview_first else [12, 13]]
    assert overview.box == fine.box == (0, 0, 90, 40)


def test_the_rows_of_a_tile_follow_one_another() -> None:
    fine, _ = tiled_layouts((40, 40), (20, 20), (2, 2), (1, 2))
    assert fine.grid(torch.arange(8), 0).tokens.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_an_image_of_one_tile_has_no_overview() -> None:
    assert [layout.name for layout in tiled_layouts((5, 5), (20, 20), (2, 2), (1, 1))] == ["fine"]


def test_what_the_image_does_not_fill_is_beyond_it() -> None:
    fine, overview = tiled_layouts((30, 30), (20, 20), (2, 2), (2, 2), resized=(30, 30))
    assert fine.box == (0, 0, 40, 40)
    assert overview.box == (0, 0, 30, 30)


def test_all_tiles_of_an_image_are_chosen_together() -> None:
    layouts = [tiled_layouts((30, 30), (20, 20), (2, 2), tiles) for tiles in ((1, 2), (1, 1), (2, 2))]
    pixels = torch.arange(3 + 1 + 5)
    chosen = select_tiles({"pixel_values": pixels}, [2, 0, 2], layouts)
    assert chosen["pixel_values"].tolist() == [4, 5, 6, 7, 8, 0, 1, 2, 4, 5, 6, 7, 8]
