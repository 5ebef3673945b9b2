"""Maps in image coordinates, against an oracle that goes pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from vlm_adapters.backbone.grids import ImageGrid
from vlm_adapters.geometry import Box, place_map


def placed_by_hand(values: NDArray[np.float64], box: Box, size: tuple[int, int], outside: float) -> NDArray[np.float64]:
    """Interpolate pixel by pixel: where its centre lies between cell centres, and the four values around it."""
    h, w = values.shape
    left, top, right, bottom = box
    result = np.full(size, outside)
    for y in range(size[0]):
        for x in range(size[1]):
            if not (left <= x + 0.5 <= right and top <= y + 0.5 <= bottom):
                continue
            row = min(max((y + 0.5 - top) / (bottom - top) * h - 0.5, 0), h - 1)
            column = min(max((x + 0.5 - left) / (right - left) * w - 0.5, 0), w - 1)
            r, c = int(row), int(column)
            below, beside = min(r + 1, h - 1), min(c + 1, w - 1)
            u, v = row - r, column - c
            upper = values[r, c] * (1 - v) + values[r, beside] * v
            lower = values[below, c] * (1 - v) + values[below, beside] * v
            result[y, x] = upper * (1 - u) + lower * u
    return result


def noise(h: int, w: int) -> NDArray[np.float64]:
    return np.random.default_rng(h * 100 + w).random((h, w))


BOXES: dict[str, Box] = {
    "the whole image": (0, 0, 31, 22),
    "beyond at the right and below": (0, 0, 40, 40),
    "beyond at all sides": (-7.5, -3.2, 33.1, 29.9),
    "covers less": (4.2, 6.6, 20.7, 15.1),
    "half beyond, half within": (-10, 8, 12, 60),
    "beside the image": (100, 100, 120, 130),
    "less than a pixel": (10.2, 10.2, 10.8, 10.8),
}


def test_every_pixel_is_between_the_cells_around_it(subtests: pytest.Subtests) -> None:
    for name, box in BOXES.items():
        with subtests.test(name):
            for shape in [(3, 5), (5, 3), (1, 1), (1, 6), (40, 50)]:
                values = noise(*shape)
                found = place_map(torch.from_numpy(values), box, (22, 31), outside=-2.0)
                expected = placed_by_hand(values, box, (22, 31), -2.0)
                np.testing.assert_allclose(found.numpy(), expected, atol=2e-5, err_msg=f"a map of {shape} cells")


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.integers(3, 120), st.integers(3, 120)),
)
def test_any_box_of_any_grid_is_placed(
    shape: tuple[int, int], size: tuple[int, int], corner: tuple[int, int, int, int]
) -> None:
    # Sevenths never fall on a pixel's centre, so rounding does not decide what is inside.
    box = (corner[0] / 7, corner[1] / 7, (corner[0] + corner[2]) / 7, (corner[1] + corner[3]) / 7)
    values = noise(*shape)
    found = place_map(torch.from_numpy(values), box, size, outside=9.0)
    np.testing.assert_allclose(found.numpy(), placed_by_hand(values, box, size, 9.0), atol=5e-5)


@pytest.mark.parametrize("size", [(22, 31), (90, 120), (7, 5)])
def test_over_the_whole_image_it_is_torch_interpolate(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(place_map(maps, (0, 0, size[1], size[0]), size), expected, atol=1e-5, rtol=0)


def test_the_peak_is_in_its_cell_of_a_grid_that_is_not_square() -> None:
    grid = ImageGrid(torch.arange(15).view(3, 5), (0.0, 0.0, 65.0, 27.0))
    for cell in [(0, 0), (0, 4), (2, 0), (2, 4), (1, 3)]:
        maps = torch.zeros(3, 5)
        maps[cell] = 1
        y, x = np.unravel_index(int(place_map(maps, grid.box, (27, 65)).argmax()), (27, 65))
        left, top, right, bottom = grid.cell_box(*cell)
        assert left <= x < right, cell
        assert top <= y < bottom, cell


def test_what_lies_in_the_padding_is_cropped_away() -> None:
    # 4 cells of 10 pixels over an image of 20 columns: the right half of the grid is padding.
    placed = place_map(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (0, 0, 40, 10), (10, 20))
    assert placed[:, :15].abs().max() == 0
    assert placed[:, 19].max() < 0.5


def test_outside_the_box_is_zero_by_default() -> None:
    assert place_map(torch.ones(2, 2), (2, 1, 4, 3), (4, 6)).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert place_map(torch.ones(2, 2), (2, 1, 4, 3), (4, 6), outside=float("-inf"))[0, 0] == float("-inf")


def test_leading_axes_stay_as_they_are() -> None:
    leading: tuple[int, ...]
    for leading in [(), (1,), (4,), (2, 3, 4), (0,), (0, 5), (3, 0)]:
        assert place_map(torch.zeros(*leading, 3, 5), (0, 0, 9, 6), (6, 9)).shape == (*leading, 6, 9)


def test_every_map_is_placed_on_its_own() -> None:
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    together = place_map(maps, (-1, 0, 9, 8), (8, 7))
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], place_map(maps[i, j], (-1, 0, 9, 8), (8, 7)), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_is_float32(dtype: torch.dtype) -> None:
    assert place_map(torch.ones(2, 2, dtype=dtype), (0, 0, 4, 4), (4, 4)).dtype == torch.float32


def test_the_input_is_left_as_it_is() -> None:
    maps = torch.ones(2, 2)
    place_map(maps, (0, 0, 2, 2), (4, 4), outside=-5)
    assert maps.tolist() == [[1, 1], [1, 1]]


def test_the_gradient_flows_back_to_the_map() -> None:
    maps = torch.rand(2, 3, requires_grad=True)
    place_map(maps, (0, 0, 6, 4), (4, 6)).sum().backward()
    assert maps.grad is not None
    assert bool((maps.grad > 0).all())
