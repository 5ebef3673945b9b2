"""The tiny random CogVLM passes every check; the oracle gives the published figures."""

from __future__ import annotations

from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_cogvlm.case import COGVLM, squashed_grid


@parametrize_with_checks([COGVLM])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


def test_published_grid() -> None:
    (square,) = squashed_grid((480, 640), side=490)
    assert square.shape == (35, 35)
    assert square.box == (0, 0, 640, 480)
