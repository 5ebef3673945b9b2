"""The tiny random LFM2-VL passes every check; without an overview its cells are where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, ExpectedGrid, parametrize_with_checks
from vlm_adapters_lfm.case import LFM2_VL, grids
from vlm_adapters_lfm.tiny import lfm2_vl

CHECKS = {check.__name__: check for check in ALL_CHECKS}


def fine_only(size: tuple[int, int]) -> Sequence[ExpectedGrid]:
    return [grid for grid in grids(size) if grid.name == "fine"]


@parametrize_with_checks([LFM2_VL])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("check", ["check_grid_shapes", "check_orientation", "check_cells_are_image_tokens"])
def test_an_image_without_a_thumbnail_has_its_tiles_only(check: str) -> None:
    CHECKS[check](replace(LFM2_VL, load=partial(lfm2_vl, use_thumbnail=False), expected_grids=fine_only))


def test_an_image_that_is_not_split_has_one_grid() -> None:
    ((layout,),) = lfm2_vl(do_image_splitting=False).layouts([(252, 84)])
    assert (layout.name, layout.cells) == ("fine", (6, 2))


def test_published_grids() -> None:
    published = partial(grids, cell=32, fewest_cells=64, most_cells=256, tile=512, most_tiles=10)
    assert [grid.shape for grid in published((480, 640))] == [(13, 18)]
    assert [grid.shape for grid in published((1000, 1500))] == [(13, 19), (32, 48)]
