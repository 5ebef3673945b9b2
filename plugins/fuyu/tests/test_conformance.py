"""The tiny random Fuyu passes every check; the oracle gives the published figures."""

from __future__ import annotations

from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_fuyu.case import FUYU, fuyu_grids


@parametrize_with_checks([FUYU])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


def test_published_grids() -> None:
    (grid,) = fuyu_grids((480, 640), limit=(1080, 1920), patch=30)
    assert grid.shape == (16, 22)
    assert grid.box == (0, 0, 660, 480)
