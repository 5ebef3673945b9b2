"""What LLaVA sees: the whole image on a square; tiles counted by the installed library's own rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_adapters import GridRequest, Prompt
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.errors import ImageError
from vlm_adapters_llava.case import llava_next_grids
from vlm_adapters_llava.tiny import SIDE, llava, llava_next

SQUARE, TILES = llava(), llava_next()


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(adapter: Any, image: Image.Image) -> torch.Tensor:
    inputs = adapter.preprocess([Prompt.describe(image, "a red circle")])
    values: torch.Tensor = inputs.tensors["pixel_values"]
    return values


def test_the_ends_of_the_image_are_seen(subtests: pytest.Subtests) -> None:
    for height, width in [(30, 90), (90, 30), (64, 64), (200, 130)]:
        with subtests.test(height=height, width=width):
            values = np.zeros((height, width, 3), np.uint8)
            values[: height // 4, : width // 4, 0] = values[-(height // 4) :, -(width // 4) :, 1] = 255
            (seen,) = pixels(SQUARE, Image.fromarray(values))
            images = SQUARE.processor.image_processor
            mean, std = (torch.tensor(value)[:, None, None] for value in (images.image_mean, images.image_std))
            colours = (seen * std + mean).clamp(0, 1)
            red, green = (colours[channel] * (colours[1 - channel] < 0.2) > 0.6 for channel in (0, 1))
            scale = SIDE / max(height, width)
            for mask in (red, green):
                assert mask.sum() == pytest.approx((height // 4) * (width // 4) * scale**2, rel=0.3)


def test_the_padding_is_the_mean_colour() -> None:
    (seen,) = pixels(SQUARE, Image.new("RGB", (90, 30), "white"))
    assert seen[:, 0].abs().max() < 0.02  # the mean is 0 after normalisation, up to its rounding to a byte
    assert seen[:, SIDE // 2].min() > 1


@given(height=st.integers(8, 300), width=st.integers(8, 300))
@settings(max_examples=150, deadline=None)
def test_the_tiles_are_the_published_rules(height: int, width: int) -> None:
    assume(max(height, width) < 8 * min(height, width))
    (layouts,) = TILES.layouts([(height, width)])
    expected = llava_next_grids((height, width))
    assert [layout.cells for layout in layouts] == [grid.shape for grid in expected]
    for layout, grid in zip(layouts, expected, strict=True):
        assert layout.box == pytest.approx(grid.box, abs=1e-6)


@given(height=st.integers(8, 300), width=st.integers(8, 300))
@settings(max_examples=25, deadline=None)
def test_the_tiles_take_the_tokens_that_the_processor_writes(height: int, width: int) -> None:
    assume(max(height, width) < 8 * min(height, width))
    inputs = TILES.preprocess([Prompt.describe(noise(height, width), "a red circle")])
    coarse, fine = TILES.locate_image_tokens(inputs)[0]
    assert coarse.tokens.numel() + fine.tokens.numel() + fine.shape[0] == len(inputs.image_tokens[0][0])


def test_an_image_that_leaves_no_column_is_a_typed_error() -> None:
    with pytest.raises(ImageError, match="Crop it"):
        TILES.preprocess([Prompt.describe(Image.new("RGB", (4, 700)), "a line")])


def test_channels_are_all_coarse_then_all_fine_on_the_fine_grid() -> None:
    prompt = Prompt.describe(noise(96, 120), "a red circle", ["a red circle"])
    grids = TILES.extract(TILES.preprocess([prompt]), GridRequest())[0]
    stacked, box = stack_channels(grids)
    coarse, fine = grids
    half = TILES.info.channels // 2
    assert box == fine.grid.box
    assert torch.equal(stacked[:, half:], fine.channels)
    resized = torch.nn.functional.interpolate(coarse.channels, fine.grid.shape, mode="bilinear", align_corners=False)
    # The fine grid's box is the image up to a cell's padding, so both placements agree but near the border.
    torch.testing.assert_close(stacked[:, :half].mean((2, 3)), resized.mean((2, 3)), rtol=0.1, atol=1e-3)
