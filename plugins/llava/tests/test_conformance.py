"""The tiny random models of the plugin pass every check; the oracles give the published figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, parametrize_with_checks
from vlm_adapters_llava import case_native_rows, case_onevision
from vlm_adapters_llava.case import LLAVA, LLAVA_NEXT, llava_grids, llava_next_grids
from vlm_adapters_llava.case_native_rows import PIXTRAL
from vlm_adapters_llava.case_onevision import LLAVA_ONEVISION
from vlm_adapters_llava.tiny import llava

CHECKS = {check.__name__: check for check in ALL_CHECKS}
PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@parametrize_with_checks([LLAVA, LLAVA_NEXT, LLAVA_ONEVISION, PIXTRAL])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("check", ["check_cells_are_image_tokens", "check_orientation", "check_rows_equal_eager"])
def test_a_class_token_that_is_kept_shifts_no_cell(check: str) -> None:
    CHECKS[check](replace(LLAVA, load=partial(llava, vision_feature_select_strategy="full")))


def test_published_grids() -> None:
    (square,) = llava_grids((480, 640), side=336, patch=14)
    assert square.shape == (24, 24)
    assert square.box == (0, -80, 640, 560)
    coarse, fine = llava_next_grids((480, 640), side=336, patch=14, pinpoints=PUBLISHED)
    assert (coarse.shape, fine.shape) == ((24, 24), (36, 48))
    assert coarse.shape[0] * coarse.shape[1] + fine.shape[0] * (fine.shape[1] + 1) == 2340


def test_published_grids_of_onevision() -> None:
    published = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
    overview, fine = case_onevision.grids((480, 640), tile=384, patch=14, pinpoints=published, most=9)
    assert (overview.shape, fine.shape) == ((27, 27), (40, 54))
    assert overview.box == (0, 0, 640 * 378 / 384, 480 * 378 / 384)


def test_published_grids_of_onevision_are_thinned_beyond_nine_tiles() -> None:
    published = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
    _, fine = case_onevision.grids((2304, 2304), tile=384, patch=14, pinpoints=published, most=9)
    assert fine.shape == (81, 81)  # of 162 x 162
    assert fine.rows[13] == (13 * 28, 14 * 28 + 6)  # the middle row of a tile of 27 reaches into the next one


def test_published_grids_of_native_rows() -> None:
    (mistral,) = case_native_rows.grids((480, 640), cell=28, longest=1540)
    (pixtral,) = case_native_rows.grids((480, 640), cell=16, longest=1024)
    assert (mistral.shape, pixtral.shape) == ((18, 23), (30, 40))
