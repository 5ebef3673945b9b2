"""Attention maps placed over an image, and the sheet that shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters.backbone.grids import Grids, ImageGrid
from vlm_adapters.data.sample import Sample
from vlm_adapters.heads.attention import attention_maps
from vlm_adapters.output.attention import attention_map, attention_sheet, write_attention
from vlm_adapters.prompt import Prompt

if TYPE_CHECKING:
    from vlm_adapters.backbone.protocol import BackboneAdapter

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


def test_a_sheet_shows_every_layer_and_every_chosen_head(planted: BackboneAdapter, squares: list[Sample]) -> None:
    prompt = squares[0].prompt
    ((maps,),) = attention_maps(planted, [prompt])
    one, four = (attention_sheet(prompt, maps, 1, heads) for heads in (1, 4))
    many = attention_sheet(prompt, replace(maps, ranking=(maps.ranking[0] * 3,) * 2), 1, 12)
    areas = [sheet.width * sheet.height for sheet in (one, four, many)]
    assert areas == sorted(areas)
    assert areas[0] < areas[2]


def test_a_sheet_says_that_its_maps_are_raw_and_shows_others(planted: BackboneAdapter, squares: list[Sample]) -> None:
    sheets = []
    for raw in (False, True):
        ((maps,),) = attention_maps(planted, [squares[0].prompt], raw=raw)
        sheets.append(attention_sheet(squares[0].prompt, maps, 0, 2))
    assert sheets[0].size == sheets[1].size
    assert sheets[0].tobytes() != sheets[1].tobytes()


def test_the_report_has_ranking_sinks_and_reliability(
    cornered: BackboneAdapter, squares: list[Sample], tmp_path: Path
) -> None:
    written = write_attention(cornered, squares[0].prompt, tmp_path, heads=3)
    assert json.loads((tmp_path / "attention.json").read_text()) == json.loads(json.dumps(written))
    assert written["raw"] is False
    for shown in written["phrases"]:
        assert (shown["heads"][0]["layer"], shown["heads"][0]["head"]) == (2, 0)
        assert len(shown["heads"]) == 3
        assert shown["sinks"] == [(0, 0), (10, 15)]
        assert shown["reliability"]["level"] == "low"  # half of the heads look at corners, and one alone follows
        assert shown["reliability"]["on_sinks"] == pytest.approx(0.5, abs=0.02)
