"""Places of pixels for processors that are made up, and the vision side in which every patch sees itself only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from vlm_adapters.discovery.pixels import map_pixels, with_pixels
from vlm_adapters.discovery.vision import EachItself
from vlm_adapters.errors import BackboneError

SIDE = 32


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def squashed(image: Image.Image) -> dict[str, Any]:
    return {"pixel_values": pixels_of(image.resize((SIDE, SIDE)))[None] * 2 - 1, "input_ids": torch.ones(1, 3).long()}


def padded(image: Image.Image) -> dict[str, Any]:
    """On the upper half of a square."""
    square = Image.new("RGB", (SIDE, SIDE), (90, 120, 30))
    square.paste(image.resize((SIDE, SIDE // 2)), (0, 0))
    return {"pixel_values": pixels_of(square)[None]}


def patches(image: Image.Image) -> dict[str, Any]:
    """Lines of 8 x 8 pixels, without the form of an image."""
    whole = pixels_of(image.resize((SIDE, SIDE)))
    return {"pixel_values": whole.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).reshape(16, -1)}


def test_the_places_of_an_image_that_is_squashed() -> None:
    found = map_pixels(squashed, (64, 128))
    x, y = found.places["pixel_values"]
    expected = (torch.arange(SIDE) + 0.5) / SIDE
    assert torch.allclose(x[0, 0, 5], expected * 128, atol=1)
    assert torch.allclose(y[0, 0, :, 5], expected * 64, atol=1)


def test_places_go_on_through_padding() -> None:
    found = map_pixels(padded, (64, 128))
    _, y = found.places["pixel_values"]
    assert bool(found.known["pixel_values"].all())
    assert float(y[0, 0, -1, 0]) == pytest.approx(126, abs=2)


def test_lines_of_patches_keep_their_own_places() -> None:
    found = map_pixels(patches, (64, 64))
    x, y = (place.view(4, 4, 3, 8, 8).mean((2, 3, 4)) for place in found.places["pixel_values"])
    assert torch.allclose(x, torch.tensor([8.0, 24, 40, 56]).expand(4, 4), atol=1)
    assert torch.allclose(y, torch.tensor([8.0, 24, 40, 56])[:, None].expand(4, 4), atol=1)


def test_features_that_no_image_changes_are_refused() -> None:
    with pytest.raises(BackboneError, match="No features of 64 x 64 pixels change with the image"):
        map_pixels(lambda _: {"pixel_values": torch.ones(1, 3, 4, 4)}, (64, 64))


def test_pixels_in_lists_are_replaced_too() -> None:
    features = {"images": [torch.zeros(2), torch.zeros(2)], "name": "a"}
    found = with_pixels(features, {"images/1": torch.ones(2)})
    assert [tensor.tolist() for tensor in found["images"]] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("kernel", ["sdpa", "softmax"])
def test_every_patch_sees_itself_only(kernel: str) -> None:
    states = torch.randn(1, 2, 5, 8)

    def attend(query: torch.Tensor) -> torch.Tensor:
        if kernel == "sdpa":
            return functional.scaled_dot_product_attention(query, query, query)
        return nn.functional.softmax(query @ query.transpose(-1, -2), dim=-1) @ query

    assert not torch.allclose(attend(states), states)
    with EachItself():
        assert torch.allclose(attend(states), states)


def test_queries_of_other_tokens_see_what_they_saw() -> None:
    query, key = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8)
    expected = functional.scaled_dot_product_attention(query, key, key)
    with EachItself():
        assert torch.equal(functional.scaled_dot_product_attention(query, key, key), expected)
