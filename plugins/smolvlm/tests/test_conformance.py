"""The tiny random Idefics3 passes every check; SmolVLM2, which has seams, those of places; published figures hold."""

from __future__ import annotations

import pytest

from vlm_adapters import Prompt
from vlm_adapters.errors import PromptError
from vlm_adapters.testing import ALL_CHECKS, AdapterCase, Check, parametrize_with_checks
from vlm_adapters.testing.support import image
from vlm_adapters_smolvlm.case import IDEFICS3, SMOLVLM, grids
from vlm_adapters_smolvlm.tiny import idefics3

CHECKS = {check.__name__: check for check in ALL_CHECKS}
OF_PLACES = (
    "check_grid_shapes",
    "check_cells_are_image_tokens",
    "check_orientation",
    "check_several_images",
    "check_ids_of_two_images_equal_stock",
    "check_pixels_of_two_images_equal_stock",
)


@parametrize_with_checks([IDEFICS3])
def test_conformance(case: AdapterCase, check: Check) -> None:
    check(case)


@pytest.mark.parametrize("check", OF_PLACES)
def test_smolvlm_has_its_cells_beside_the_seams(check: str) -> None:
    pytest.importorskip("num2words")
    CHECKS[check](SMOLVLM)


def test_a_size_of_no_full_tiles_is_refused_where_transformers_counts_them_wrongly() -> None:
    """Once this no longer raises, transformers counts the tiles that it cuts: change the README."""
    adapter = idefics3()
    adapter.processor.image_processor.size = {"longest_edge": 100}
    with pytest.raises(PromptError, match="image tokens in the sequence and needs"):
        adapter.locate_image_tokens(adapter.preprocess([Prompt.describe(image((51, 100)), "a red circle")]))


def test_published_grids_of_the_small_models() -> None:
    overview, fine = grids((480, 640), tile=512, cells=8, cell=64, most_tiles=4)
    assert (overview.shape, fine.shape) == ((8, 8), (24, 32))
    assert overview.box == fine.box == (0, 0, 640, 480)


def test_published_grids_of_the_large_model() -> None:
    overview, fine = grids((1152, 1536), tile=384, cells=9, cell=42, most_tiles=4)
    assert (overview.shape, fine.shape) == ((9, 9), (27, 36))
    assert overview.box == (0, 0, 1512, 1134)  # 378 of the 384 pixels of a tile have cells
    assert fine.columns[8:10] == ((336, 378), (384, 426))
