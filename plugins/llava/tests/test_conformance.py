"""The tiny random LLaVA and LLaVA-Next pass every check; the oracles give the published figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, parametrize_with_checks
from vlm_adapters_llava.case import LLAVA, LLAVA_NEXT, llava_grids, llava_next_grids
from vlm_adapters_llava.tiny import llava

CHECKS = {check.__name__: check for check in ALL_CHECKS}
PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@parametrize_with_checks([LLAVA, LLAVA_NEXT])
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
