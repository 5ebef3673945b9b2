"""The tiny random MiniCPM-V 4.6 passes every check, 4.7 those in which it differs; the published rule of slices."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, parametrize_with_checks
from vlm_adapters_minicpm.case import MINICPM_4_6, MINICPM_4_7, minicpm_grids
from vlm_adapters_minicpm.tiny import minicpmv4_6

CHECKS = {check.__name__: check for check in ALL_CHECKS}
ADAPTER = minicpmv4_6()


@parametrize_with_checks([MINICPM_4_6])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize(
    "check",
    [
        "check_ids_of_two_images_equal_stock",
        "check_orientation",
        "check_rows_equal_eager",
        "check_texts_of_one_image_equal_samples",
        "check_left_padded_batch_equals_samples",
        "check_generation_equals_one_pass",
    ],
)
def test_minicpm_4_7(check: str) -> None:
    CHECKS[check](replace(MINICPM_4_7, sizes=((84, 252), (133, 211))))


@given(height=st.integers(3, 900), width=st.integers(3, 900))
@settings(max_examples=150, deadline=None)
def test_the_grids_are_the_published_rules(height: int, width: int) -> None:
    (layouts,) = ADAPTER.layouts([(height, width)])
    expected = minicpm_grids((height, width))
    assert [(layout.name, layout.cells) for layout in layouts] == [(grid.name, grid.shape) for grid in expected]


def test_published_grids() -> None:
    assert [grid.shape for grid in minicpm_grids((300, 400), side=448, cell=56, slices=9)] == [(7, 9)]
    overview, fine = minicpm_grids((480, 640), side=448, cell=56, slices=9)
    assert (overview.name, overview.shape, fine.shape) == ("overview", (7, 9), (10, 14))
