"""The tiny random Llama 4 passes the checks of inputs, grids and rows; the oracle gives known figures.

`adapters check --all` runs the whole suite; that of another family of tiles is run with these tests (InternVL).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from vlm_adapters import Prompt
from vlm_adapters.errors import CaptureError
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters_llama.case import LLAMA4, llama4_grids
from vlm_adapters_llama.tiny import llama4

CHECKS = {check.__name__: check for check in ALL_CHECKS}
CHOSEN = [
    "check_ids_equal_stock",
    "check_pixels_of_two_images_equal_stock",
    "check_cell_boxes",
    "check_orientation",
    "check_several_images",
    "check_rows_equal_eager",
    "check_rows_beside_eager_kernel",
    "check_right_padded_batch_equals_samples",
    "check_texts_of_one_image_equal_samples",
    "check_generation_equals_one_pass",
]
CHUNKED = replace(LLAMA4, load=partial(llama4, chunk=64))
"""With prompts of several chunks of tokens; those of the published models have 8192."""


@pytest.mark.parametrize("check", CHOSEN)
def test_conformance(check: str) -> None:
    CHECKS[check](LLAMA4)


@pytest.mark.parametrize("check", ["check_rows_equal_eager", "check_left_padded_batch_equals_samples"])
def test_layers_that_see_their_chunk_only(check: str) -> None:
    CHECKS[check](CHUNKED)


def test_a_cache_that_forgets_chunks_is_an_error() -> None:
    with pytest.raises(CaptureError, match="sees 64 keys after"):
        CHECKS["check_generation_equals_one_pass"](CHUNKED)


def test_the_head_over_the_vocabulary_runs_on_one_token() -> None:
    """The model has no base model without it."""
    adapter, lengths = llama4(), []
    head = adapter.model.get_output_embeddings()
    assert head is not None
    head.register_forward_hook(lambda _module, _arguments, logits: lengths.append(logits.shape[1]))
    adapter.extract(adapter.preprocess([Prompt.describe(Image.new("RGB", (80, 60)), "a red circle", ["circle"])]))
    assert lengths == [1]


def test_the_vision_tower_runs_once_for_all_texts_about_an_image() -> None:
    adapter, tiles = llama4(), []
    tower = adapter.model.get_submodule("vision_model")
    tower.register_forward_pre_hook(lambda _module, arguments: tiles.append(len(arguments[0])))
    image = Image.new("RGB", (80, 60))
    prompts = [Prompt.describe(image, text, [text]) for text in ("a red circle", "a star", "the left one")]
    adapter.extract(adapter.preprocess(prompts))
    assert tiles == [3]  # two and the overview


def test_rotations_of_the_vision_tower_stay_complex() -> None:
    assert llama4(dtype=torch.bfloat16).model.get_submodule("vision_model.rotary_embedding").freqs_ci.is_complex()


def test_published_grids() -> None:
    overview, fine = llama4_grids((480, 640), side=336, cell=28, most=16)
    assert (overview.shape, fine.shape) == ((12, 12), (24, 24))
    assert fine.box == (0, 0, 672, 672)  # the image keeps its size at the top left of 2 x 2 tiles
    (single,) = llama4_grids((100, 200), side=336, cell=28, most=16)
    assert single.box == (0, 0, 200, 200)  # enlarged to one tile, the lower half of which is empty
