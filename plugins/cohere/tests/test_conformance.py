"""The tiny random Aya Vision and Command A Vision pass the checks of inputs and grids; the oracles give known figures.

`adapters check --all` runs the whole suite; that of another family of tiles is run with these tests (InternVL).
"""

from __future__ import annotations

import pytest

from vlm_adapters.testing import ALL_CHECKS, AdapterCase
from vlm_adapters_cohere.case import AYA_VISION, COHERE2_VISION, aya_vision_grids, cohere2_vision_grids

CHECKS = {check.__name__: check for check in ALL_CHECKS}
CHOSEN = [
    "check_ids_equal_stock",
    "check_pixels_of_two_images_equal_stock",
    "check_cell_boxes",
    "check_orientation",
    "check_several_images",
    "check_rows_equal_eager",
    "check_texts_of_one_image_equal_samples",
]


@pytest.mark.parametrize("case", [AYA_VISION, COHERE2_VISION], ids=["aya_vision", "cohere2_vision"])
@pytest.mark.parametrize("check", CHOSEN)
def test_conformance(case: AdapterCase, check: str) -> None:
    CHECKS[check](case)


def test_published_grids_of_aya_vision() -> None:
    overview, fine = aya_vision_grids((480, 640), side=364, cell=28, most=12)
    assert (overview.shape, fine.shape) == ((13, 13), (39, 52))
    assert [grid.name for grid in aya_vision_grids((200, 200), side=364, cell=28, most=12)] == ["fine"]


def test_published_grids_of_command_a_vision() -> None:
    overview, fine = cohere2_vision_grids((480, 640), side=512, cell=32, most=12)
    assert (overview.shape, fine.shape) == ((16, 16), (16, 32))  # two tiles hold it without shrinking, one does not
    assert [grid.name for grid in cohere2_vision_grids((400, 500), side=512, cell=32, most=12)] == ["fine"]
