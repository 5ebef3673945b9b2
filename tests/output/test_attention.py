"""Attention maps placed over an image, and the sheet that shows them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.heads.ranking import RankedHead
from vlm_adapters.output.attention import attention_map, attention_sheet
from vlm_adapters.prompt import Prompt

PROMPT = Prompt.describe(Image.new("RGB", (60, 40), "grey"), "a dog and a cat", ["a dog", "a cat"])


def grids() -> Grids:
    """Two phrases, layers 3 and 7, heads 1 and 5, 2 x 3 cells: in layer 7 each head looks at one cell for phrase 1."""
    attention = torch.zeros(2, 2, 2, 2, 3)
    attention[1, 1, 0, 1, 2] = 0.2
    attention[1, 1, 1, 0, 0] = 0.1
    box = (0.0, 0.0, 60.0, 40.0)
    hidden = torch.zeros(0, 8, 2, 3)
    return Grids(ImageGrid(torch.arange(6).view(2, 3), box), attention, (3, 7), (1, 5), (0, 1), hidden)


def test_the_map_of_a_head_peaks_at_its_cell_with_1() -> None:
    shown = attention_map(grids(), 1, (40, 60), 7, 1)
    assert shown.shape == (40, 60)
    assert shown[39, 59] == shown.max() == 1
    assert attention_map(grids(), 1, (40, 60), 7, 5)[0, 0] == 1


def test_the_map_of_a_layer_is_the_mean_of_its_heads() -> None:
    shown = attention_map(grids(), 1, (40, 60), 7)
    assert shown[39, 59] == 1
    np.testing.assert_allclose(shown[0, 0], 0.5)


def test_a_map_without_attention_stays_zero() -> None:
    assert not attention_map(grids(), 0, (40, 60), 3, 1).any()


def test_a_sheet_shows_every_layer_and_every_chosen_head() -> None:
    one = attention_sheet(PROMPT, grids(), 1, [RankedHead(7, 1, 0.2, 0.0)])
    many = attention_sheet(PROMPT, grids(), 1, [RankedHead(7, 1, 0.2, 0.0)] * 12)
    assert one.width == many.width
    assert many.height > one.height
