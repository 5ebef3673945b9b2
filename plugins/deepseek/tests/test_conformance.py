"""The tiny random DeepSeek-VL models pass every check; the oracle gives the published figures."""

from __future__ import annotations

from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_deepseek.case import DEEPSEEK_VL, DEEPSEEK_VL_HYBRID, square_grid


@parametrize_with_checks([DEEPSEEK_VL, DEEPSEEK_VL_HYBRID])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


def test_published_grids() -> None:
    (square,) = square_grid((480, 640), side=384, cells=24)
    assert square.shape == (24, 24)
    assert square.box == (0, -80, 640, 560)
