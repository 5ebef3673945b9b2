"""Mistral 3 and Pixtral: images at their own size, row by row."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import Prompt
from vlm_adapters.errors import ImageError
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters_llava.case_native_rows import MISTRAL3, grids
from vlm_adapters_llava.tiny_native_rows import MERGE, PATCH, mistral3, pixtral

CHECKS = {check.__name__: check for check in ALL_CHECKS}
ADAPTERS = ((mistral3(), PATCH * MERGE), (pixtral(), PATCH))


@pytest.mark.parametrize(
    "check", ["check_grid_shapes", "check_orientation", "check_several_images", "check_ids_of_two_images_equal_stock"]
)
def test_mistral3_has_its_cells_where_the_rule_says(check: str) -> None:
    CHECKS[check](MISTRAL3)


@given(height=st.integers(20, 400), width=st.integers(20, 400))
@settings(max_examples=150, deadline=None)
def test_the_cells_are_the_published_rules(height: int, width: int) -> None:
    for adapter, cell in ADAPTERS:
        ((layout,),) = adapter.layouts([(height, width)])
        (expected,) = grids((height, width), cell=cell)
        assert layout.cells == expected.shape
        assert layout.box == pytest.approx(expected.box)


def test_every_row_has_one_more_token() -> None:
    for adapter, _ in ADAPTERS:
        inputs = adapter.preprocess([Prompt.describe(Image.new("RGB", (90, 60)), "a red circle")])
        (grid,) = adapter.locate_image_tokens(inputs)[0]
        ids = inputs.tensors["input_ids"][0]
        after = [ids[row[-1] + 1].item() for row in grid.tokens]
        processor = adapter.processor
        assert after == [processor.image_break_token_id] * (len(after) - 1) + [processor.image_end_token_id]


def test_an_image_of_one_token_is_refused() -> None:
    with pytest.raises(ImageError, match="Enlarge it"):
        ADAPTERS[0][0].preprocess([Prompt.describe(Image.new("RGB", (16, 9)), "a dot")])


def test_transformers_fails_on_an_image_of_one_token() -> None:
    """The reason of the refusal: once this passes in transformers, remove it."""
    one_token = partial(
        ADAPTERS[0][0].model.get_image_features, torch.zeros(1, 3, 16, 16), image_sizes=torch.tensor([[16, 16]])
    )
    with pytest.raises(RuntimeError, match="split_sizes"):
        one_token()
