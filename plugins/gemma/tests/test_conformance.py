"""The tiny random Gemma 4 and PaliGemma 2 pass every check; Gemma 3 those in which it differs; the published grids."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, parametrize_with_checks
from vlm_adapters_gemma.case import GEMMA3, GEMMA4, GEMMA4_UNIFIED, PALIGEMMA, budget_grids, square_grids
from vlm_adapters_gemma.tiny import gemma4, paligemma

CHECKS = {check.__name__: check for check in ALL_CHECKS}
DIFFERENT = (
    "check_ids_equal_stock",
    "check_ids_of_two_images_equal_stock",
    "check_orientation",
    "check_rows_equal_eager",
    "check_texts_of_one_image_equal_samples",
    "check_attention_pattern",
    "check_generation_equals_one_pass",
)


@parametrize_with_checks([GEMMA4, PALIGEMMA])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("check", DIFFERENT)
@pytest.mark.parametrize(
    "case",
    [
        GEMMA3,
        replace(GEMMA4, load=partial(gemma4, large=True)),
        GEMMA4_UNIFIED,
        replace(PALIGEMMA, load=partial(paligemma, first=True)),
    ],
    ids=["gemma3", "gemma4 large", "gemma4 unified", "paligemma 1"],
)
def test_what_differs_between_the_families(case: AdapterCase, check: str) -> None:
    CHECKS[check](case)


def test_published_grids() -> None:
    assert square_grids((480, 640), cells=16)[0].shape == (16, 16)
    assert budget_grids((480, 640), cell=48, most=280)[0].shape == (14, 19)
    assert budget_grids((100, 3000), cell=48, most=280)[0].shape == (3, 91)
