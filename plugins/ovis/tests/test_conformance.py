"""The tiny random Ovis 2 passes the checks of inputs and grids; the oracle gives known figures.

`adapters check --all` runs the whole suite; that of another family of tiles is run with these tests (InternVL).
"""

from __future__ import annotations

import pytest
from PIL import Image

from vlm_adapters import Prompt
from vlm_adapters.geometry import Size
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters_ovis.case import OVIS2, ovis2_grids
from vlm_adapters_ovis.tiny import ovis2

CHECKS = {check.__name__: check for check in ALL_CHECKS}
CHOSEN = [
    "check_control_tokens_are_text",
    "check_ids_of_two_images_equal_stock",
    "check_pixels_equal_stock",
    "check_cell_boxes",
    "check_orientation",
    "check_several_images",
    "check_rows_equal_eager",
    "check_texts_of_one_image_equal_samples",
]


@pytest.mark.parametrize("check", CHOSEN)
def test_conformance(check: str) -> None:
    CHECKS[check](OVIS2)


@pytest.mark.parametrize(
    ("size", "shape"), [((480, 640), (32, 32)), ((448, 896), (32, 16)), ((896, 448), (16, 32)), ((448, 448), None)]
)
def test_published_grids(size: Size, shape: tuple[int, int] | None) -> None:
    """In transformers a wide image has more rows than columns of tiles; the published code does the opposite."""
    *overview, fine = ovis2_grids(size, side=448, cell=28, most=9)
    assert fine.shape == (shape or (16, 16))
    assert [grid.shape for grid in overview] == ([(16, 16)] if shape else [])


def test_a_placeholder_that_is_no_token_stands_for_the_image() -> None:
    adapter = ovis2()
    assert "<image>" not in adapter.processor.tokenizer.get_vocab()
    inputs = adapter.preprocess([Prompt.describe(Image.new("RGB", (40, 40)), "an <image> of a cat", ["<image>"])])
    ids = inputs.tensors["input_ids"][0]
    assert ids.eq(adapter.model.config.image_token_id).sum() == 16
    assert adapter.processor.tokenizer.decode(ids[inputs.phrase_tokens[0][0]]) == "<image>"
