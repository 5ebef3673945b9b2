"""Where cells stand, from how an image was resized and padded, against sums done by hand and pixels counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import ImageLayout
from vlm_adapters.backbone import fit_square, square_layout
from vlm_adapters.backbone.layout import place_layouts
from vlm_adapters.errors import ImageError, PromptError


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
