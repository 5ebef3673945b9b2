"""A backbone whose image tokens have no places passes the suite; its rows stay, and maps and masks are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typing_extensions import override

from vlm_adapters import GridRequest, GroundedVLM, Prompt
from vlm_adapters.backbone.grids import BackboneInputs, ImageGrid
from vlm_adapters.errors import NoGridError
from vlm_adapters.heads.maps import head_maps
from vlm_adapters.output.attention import write_attention
from vlm_adapters.testing import ALL_CHECKS, run_checks
from vlm_adapters.testing.fakes import FAKE_CASE, FakeAdapter

PROMPT = Prompt.describe(Image.new("RGB", (64, 48), "red"), "a red circle and a star", ["a red circle"])


class UnplacedFake(FakeAdapter):
    """The fake as a resampler leaves it: the same tokens, without places."""

    def __init__(self, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> None:
        super().__init__(dtype=dtype, attention=attention)
        self.info = replace(self.info, grids=())

    @override
    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        placed = super().locate_image_tokens(inputs)
        return [[replace(grid, tokens=grid.tokens.reshape(1, -1), box=None) for grid in grids] for grids in placed]


def load(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> UnplacedFake:
    return UnplacedFake(dtype=dtype, attention=attention)


def test_it_passes_the_suite() -> None:
    case = replace(FAKE_CASE, name="unplaced", load=load, expected_grids=lambda _: [])
    # a new process cannot import this file
    results = run_checks(case, [check for check in ALL_CHECKS if check.__name__ != "check_spawned_process"])
    assert [result.reason for result in results if result.state == "failed"] == []
    assert {result.check for result in results if "have no places" in result.reason} == {
        "check_grid_names",
        "check_grid_shapes",
        "check_cell_boxes",
        "check_orientation",
        "check_several_images",
    }


def test_rows_and_hidden_states_are_those_of_the_tokens() -> None:
    adapter, placed = UnplacedFake(), FakeAdapter()
    request = GridRequest(hidden_layers=1)
    ((found,),) = adapter.extract(adapter.preprocess([PROMPT]), request)
    ((expected,),) = placed.extract(placed.preprocess([PROMPT]), request)
    torch.testing.assert_close(found.attention.flatten(-2), expected.attention.flatten(-2), rtol=0, atol=0)
    torch.testing.assert_close(found.hidden.flatten(-2), expected.hidden.flatten(-2), rtol=0, atol=0)


def test_a_decoder_of_it_is_refused() -> None:
    with pytest.raises(NoGridError, match="have no places in the image"):
        GroundedVLM.untrained(UnplacedFake())


def test_maps_of_its_heads_are_refused() -> None:
    adapter = UnplacedFake()
    extracted = adapter.extract(adapter.preprocess([PROMPT]), GridRequest())[0]
    with pytest.raises(NoGridError, match="have no places in the image"):
        head_maps(extracted)


def test_heat_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoGridError, match="have no places in the image"):
        write_attention(UnplacedFake(), PROMPT, tmp_path / "out", heads=2)
