"""LLaVA-OneVision: tiles for an image that is alone, one square for each of several, both in one batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import GridRequest, Message, Prompt
from vlm_adapters.errors import ImageError
from vlm_adapters.testing.support import image
from vlm_adapters_llava.case_onevision import grids, grids_beside_others
from vlm_adapters_llava.onevision import fewer_spans
from vlm_adapters_llava.tiny_onevision import llava_onevision

ADAPTER = llava_onevision()


@given(height=st.integers(8, 400), width=st.integers(8, 400))
@settings(max_examples=150, deadline=None)
def test_the_tiles_are_the_published_rules(height: int, width: int) -> None:
    assume(max(height, width) <= 6 * min(height, width))  # a narrower one may leave no cell of six: refused below
    ((_, layout),) = ADAPTER.layouts([(height, width)])
    fine = layout.grid(torch.arange(layout.token_count), 0)
    expected = grids((height, width))[1]
    assert fine.shape == expected.shape
    for cell in ((0, 0), (fine.shape[0] // 2, fine.shape[1] // 2), (fine.shape[0] - 1, fine.shape[1] - 1)):
        assert fine.cell_box(*cell) == pytest.approx(expected.cell_box(*cell), abs=1e-6)


@given(height=st.integers(8, 400), width=st.integers(8, 400))
@settings(max_examples=100, deadline=None)
def test_an_image_beside_others_is_padded_to_a_square(height: int, width: int) -> None:
    for (layout,) in ADAPTER.layouts([(height, width), (50, 60)])[:1]:
        (expected,) = grids_beside_others((height, width))
        assert (layout.cells, layout.last) == (expected.shape, 1)
        assert layout.box == pytest.approx(expected.box, abs=1e-6)


def test_prompts_of_one_and_of_two_images_stand_in_one_batch() -> None:
    alone = Prompt.describe(image((60, 150)), "a red circle", ["a red circle"])
    several = Prompt.chat(
        [Message("user", [image((84, 200)), image((160, 90)), "Which?"]), Message("assistant", ["a red circle"])],
        ["a red circle"],
    )
    together = ADAPTER.extract(ADAPTER.preprocess([alone, several, alone]), GridRequest())
    for found, prompt in zip(together, (alone, several, alone), strict=True):
        for grid, expected in zip(found, ADAPTER.extract(ADAPTER.preprocess([prompt]), GridRequest())[0], strict=True):
            torch.testing.assert_close(grid.attention, expected.attention, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(4, 700), (49, 8)])
def test_an_image_that_leaves_no_row_or_column_is_a_typed_error(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="Crop it"):
        ADAPTER.preprocess([Prompt.describe(Image.new("RGB", size), "a line")])


def test_thinned_cells_reach_over_the_seams() -> None:
    spans = ((0.0, 8.0), (8.0, 16.0), (20.0, 28.0), (28.0, 36.0))
    assert fewer_spans(spans, 2) == ((0, 16), (20, 36))
    first, middle, last = fewer_spans(spans, 3)
    assert first == pytest.approx((0, 8 + 8 / 3))
    assert middle == pytest.approx((8 + 8 / 3, 20 + 16 / 3))
    assert last == pytest.approx((20 + 16 / 3, 36))
