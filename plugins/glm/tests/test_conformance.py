"""The tiny random GLM-4.1V passes every check; the oracle gives the published figures."""

from __future__ import annotations

import pytest

from vlm_adapters.errors import ImageError
from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks
from vlm_adapters_glm.case import GLM4V, glm_grids
from vlm_adapters_glm.tiny import glm4v


@parametrize_with_checks([GLM4V])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize(
    ("size", "cells"),
    [
        ((480, 640), (17, 23)),
        ((20, 140), (2, 8)),  # enlarged to 28 x 196, of which even two frames have fewer than 112 x 112 pixels
        ((4000, 3000), (100, 75)),  # half of 15000 cells, since there are two frames
    ],
)
def test_published_grids(size: tuple[int, int], cells: tuple[int, int]) -> None:
    assert [grid.shape for grid in glm_grids(size)] == [cells]


def test_a_strip_is_an_error_that_says_so() -> None:
    with pytest.raises(ImageError, match=r"4 x 900 pixels cannot be resized: .* 200.*Crop it"):
        glm4v().layouts([(900, 4)])
