"""The tiny random Molmo 2 passes every check; tiles are counted by the published rule; the oracle's published grids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_molmo.case import MOLMO2, molmo2_grids
from vlm_adapters_molmo.tiny import MARGIN, PATCH, molmo2

ADAPTER = molmo2()


@parametrize_with_checks([MOLMO2])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@given(height=st.integers(3, 900), width=st.integers(3, 900))
@settings(max_examples=150, deadline=None)
def test_the_grids_are_the_published_rules(height: int, width: int) -> None:
    border = 2 * MARGIN * PATCH
    if border in (height, width):  # the rule divides by what is left of a side without its margins
        return
    (layouts,) = ADAPTER.layouts([(height, width)])
    expected = molmo2_grids((height, width))
    assert [layout.cells for layout in layouts] == [grid.shape for grid in expected]
    for layout, grid in zip(layouts, expected, strict=True):
        assert layout.box == pytest.approx(grid.box)


def test_published_grids() -> None:
    overview, fine = molmo2_grids((480, 640), side=378, patch=14, margin=4, crops=8)
    assert (overview.shape, fine.shape) == ((14, 14), (23, 23))
