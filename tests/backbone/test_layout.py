"""Where cells stand, from how an image was resized and padded, against sums done by hand and pixels counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import ImageGrid, ImageLayout
from vlm_adapters.backbone import fit_square, square_layout, tile_spans
from vlm_adapters.backbone.layout import place_layouts
from vlm_adapters.errors import BackboneError, ImageError, NoGridError, PromptError


def test_a_layout_without_padding_covers_the_image() -> None:
    layout = ImageLayout((480, 640), resized=(476, 644), canvas=(476, 644), cells=(17, 23))
    assert layout.box == (0, 0, 640, 480)
    assert layout.cell == (28, 28)
    assert layout.token_count == 17 * 23


def test_a_padded_layout_reaches_beyond_the_image() -> None:
    layout = square_layout((480, 640), side=336, cells=24)
    assert (layout.resized, layout.offset) == ((252, 336), (42, 0))
    assert layout.box == (0, -80, 640, 560)


def test_a_canvas_that_crops_covers_less_than_the_image() -> None:
    layout = ImageLayout((100, 100), resized=(100, 100), canvas=(80, 100), cells=(8, 10), offset=(-10, 0))
    assert layout.box == (0, 10, 100, 90)


def test_tokens_that_are_not_cells_are_left_out() -> None:
    layout = ImageLayout((20, 30), (20, 30), (20, 30), cells=(2, 3), first=1, row_end=1)
    (grid,) = place_layouts([layout], torch.arange(100, 109), image=4)
    assert grid.tokens.tolist() == [[101, 102, 103], [105, 106, 107]]
    assert grid.image == 4


def test_layouts_share_the_tokens_in_order() -> None:
    overview = ImageLayout((8, 8), (8, 8), (8, 8), (1, 2), name="overview")
    fine = ImageLayout((8, 8), (8, 8), (8, 8), (2, 2), row_end=1)
    grids = place_layouts([overview, fine], torch.arange(8), image=0, names=("overview", "fine"))
    assert [grid.tokens.tolist() for grid in grids] == [[[0, 1]], [[2, 3], [5, 6]]]


def test_tokens_that_come_tile_after_tile_are_put_side_by_side() -> None:
    layout = ImageLayout((20, 60), (20, 60), (20, 60), cells=(2, 6), tiles=(1, 3))
    grid = layout.grid(torch.arange(12), image=0)
    assert grid.tokens.tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


def test_a_newline_ends_the_rows_of_every_tile() -> None:
    layout = ImageLayout((20, 40), (20, 40), (20, 40), cells=(2, 4), tiles=(1, 2), row_end=1, last=3)
    assert layout.token_count == 2 * (2 * (2 + 1)) + 3
    grid = layout.grid(torch.arange(layout.token_count), image=0)
    assert grid.tokens.tolist() == [[0, 1, 6, 7], [3, 4, 9, 10]]


def test_layouts_come_in_the_order_of_their_names_whatever_that_of_their_tokens() -> None:
    fine = ImageLayout((8, 8), (8, 8), (8, 8), (2, 2))
    overview = ImageLayout((8, 8), (8, 8), (8, 8), (1, 1), name="overview")
    grids = place_layouts([fine, overview], torch.arange(5), image=0, names=("overview", "fine"))
    assert [(grid.name, grid.tokens.tolist()) for grid in grids] == [("overview", [[4]]), ("fine", [[0, 1], [2, 3]])]


@pytest.mark.parametrize("names", [("fine", "fine"), ("fine", "other")])
def test_a_layout_with_a_name_that_is_taken_or_unknown_is_refused(names: tuple[str, str]) -> None:
    layouts = [ImageLayout((8, 8), (8, 8), (8, 8), (1, 1), name=name) for name in names]
    with pytest.raises(BackboneError, match=rf"named {names[0]}, {names[1]}; the adapter's grid_names are .*Give each"):
        place_layouts(layouts, torch.arange(2), image=0, names=("overview", "fine"))


def test_cells_that_do_not_divide_among_tiles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\) cells \(h, w\) do not divide among \(1, 2\) tiles"):
        ImageLayout((8, 8), (8, 8), (8, 8), (2, 5), tiles=(1, 2))


def test_pixels_at_the_ends_of_tiles_belong_to_no_cell() -> None:
    columns = tile_spans(tiles=2, cells=2, pixels=10, cell=4)
    layout = ImageLayout((10, 40), (10, 20), (10, 20), cells=(1, 4), columns=columns)  # an image twice as wide
    grid = layout.grid(torch.arange(4), image=0)
    assert [grid.cell_box(0, column)[::2] for column in range(4)] == [(0, 8), (8, 16), (20, 28), (28, 36)]
    assert grid.box == (0, 0, 36, 10)
    assert layout.cell == (10, 4)


def test_a_map_over_cells_with_seams_is_placed_by_their_centres() -> None:
    columns = tile_spans(tiles=2, cells=2, pixels=10, cell=4)
    grid = ImageLayout((1, 20), (1, 20), (1, 20), cells=(1, 4), columns=columns).grid(torch.arange(4), image=0)
    centres = np.array([2.0, 6.0, 12.0, 16.0])
    placed = grid.place(torch.tensor(centres, dtype=torch.float32)[None], (1, 20))[0].numpy()
    pixels = np.arange(20) + 0.5
    inside = (pixels > 3) & (pixels < 15)  # beyond the outermost centres the value of the border continues
    assert np.abs(placed - pixels)[inside].max() < 0.6  # a map of the places shows the places


@given(st.lists(st.tuples(st.floats(0.5, 9), st.floats(0, 5)), min_size=2, max_size=8))
def test_values_that_grow_with_the_place_still_do_on_even_cells(cells: list[tuple[float, float]]) -> None:
    starts = np.cumsum([0.0, *(length + gap for length, gap in cells)])
    columns = tuple((float(start), float(start + length)) for start, (length, _) in zip(starts, cells, strict=False))
    right = columns[-1][1]
    grid = ImageGrid(torch.zeros(1, len(cells), dtype=torch.long), (0, 0, right, 1), columns=columns)
    centres = np.array([(start + end) / 2 for start, end in columns])
    even = grid.evenly(torch.tensor(centres, dtype=torch.float32)[None])[0].numpy()
    wanted = (np.arange(len(cells)) + 0.5) * right / len(cells)
    np.testing.assert_allclose(even, np.interp(wanted, centres, centres), rtol=1e-4, atol=1e-4)


def test_tokens_without_places_have_no_cell_and_no_map() -> None:
    grid = ImageLayout.without_places((20, 30), tokens=5).grid(torch.arange(5), image=0)
    assert (grid.shape, grid.box) == ((1, 5), None)
    for work in (lambda: grid.cell_box(0, 0), lambda: grid.place(torch.zeros(1, 5), (20, 30))):
        with pytest.raises(NoGridError, match=r"have no places in the image.*rows and hidden states are in Grids"):
            work()


def test_another_number_of_tokens_is_refused() -> None:
    with pytest.raises(PromptError, match=r"Image 0 has 5 image tokens in the sequence and needs 4.*processor"):
        place_layouts([ImageLayout((8, 8), (8, 8), (8, 8), (2, 2))], torch.arange(5), image=0)


def test_an_image_without_a_cell_is_refused() -> None:
    with pytest.raises(ImageError, match=r"4000 x 4 pixels has no cell in a grid of 0 rows and 24 columns.*Crop it"):
        ImageLayout((4, 4000), (1, 336), (0, 336), (0, 24))


@given(height=st.integers(1, 400), width=st.integers(1, 400), side=st.integers(2, 200))
def test_the_square_holds_the_image_where_the_layout_says(height: int, width: int, side: int) -> None:
    layout = square_layout((height, width), side, 1)
    square = np.asarray(fit_square(Image.new("RGB", (width, height), "white"), side, (10, 20, 30)))
    rows, columns = (square == 255).all(-1).nonzero()
    top, left = layout.offset
    assert (rows.min(), columns.min()) == (top, left)
    assert (rows.max() + 1 - top, columns.max() + 1 - left) == layout.resized
    assert max(layout.resized) == side
    outside = square[(square != 255).any(-1)]
    assert (outside == (10, 20, 30)).all()


@given(height=st.integers(1, 400), width=st.integers(1, 400))
def test_the_image_lies_within_the_box_and_the_padding_is_even(height: int, width: int) -> None:
    layout = square_layout((height, width), 64, 8)
    left, top, right, bottom = layout.box
    assert left <= 0 <= width <= right + 1e-6
    assert top <= 0 <= height <= bottom + 1e-6
    across, down = width / layout.resized[1], height / layout.resized[0]
    assert (right - width) + left == pytest.approx(across * ((64 - layout.resized[1]) % 2))
    assert (bottom - height) + top == pytest.approx(down * ((64 - layout.resized[0]) % 2))
