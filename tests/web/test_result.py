"""A result of the page without a browser: its words, its pictures, and how long it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.geometry import place_map
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.output.render import colour_of
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter
from vlm_adapters.web.limits import RefusedError, WebLimits
from vlm_adapters.web.result import PageResult, Results, ink_on

if TYPE_CHECKING:
    from PIL import Image

    from vlm_adapters.grounding.base import Grounder

RED, GREEN, NOWHERE = (40, 30), (120, 60), (80, 5)
"""Pixels `(x, y)` within the red square, within the green one, and within none."""


@pytest.fixture
def result(by_colour: Grounder, square_image: Image.Image) -> PageResult:
    text = "a red square and a green square and a blue square"
    prompt = Prompt.describe(square_image, text, ["a red square", "a green square", "a blue square"])
    return PageResult.of(by_colour, prompt, by_colour.ground_all([prompt])[0])


@pytest.mark.parametrize(("pixel", "phrase"), [(RED, 0), (GREEN, 1)])
def test_the_word_under_a_pixel_is_that_of_the_thing_there(
    result: PageResult, pixel: tuple[int, int], phrase: int
) -> None:
    first, *others = result.words_at(*pixel)
    assert first["phrase"] == phrase
    assert first["inside"]
    (of_the_other_square,) = (word for word in others if word["phrase"] == 1 - phrase)
    assert first["height"] > 2 * of_the_other_square["height"]
    assert not any(other["inside"] for other in others)


def test_no_mask_covers_a_pixel_beside_things(result: PageResult) -> None:
    words = result.words_at(*NOWHERE)
    assert sorted(word["phrase"] for word in words) == [0, 1, 2]
    assert not any(word["inside"] for word in words)


def test_the_picture_of_a_phrase_has_colour_on_its_mask_alone(result: PageResult) -> None:
    drawn = np.asarray(result.mask_image(1, "mask")).astype(int)
    coloured = np.ptp(drawn, axis=-1) > 10
    expected = np.zeros((110, 160), np.bool_)
    expected[40:90, 100:140] = True
    assert (coloured == expected).all()


def test_the_picture_of_all_phrases_has_each_in_its_colour(result: PageResult) -> None:
    drawn = np.asarray(result.mask_image(None, "mask"))
    assert tuple(drawn[10, 20]) == colour_of(0)
    assert tuple(drawn[40, 100]) == colour_of(1)


def test_the_picture_of_a_map_is_bright_where_the_phrase_looks(result: PageResult) -> None:
    for phrase, ((x, y), (u, v)) in enumerate([(RED, GREEN), (GREEN, RED)]):
        drawn = np.asarray(result.map_image(phrase, 2, 1)).astype(int).sum(axis=-1)
        assert drawn[y, x] > 1.5 * drawn[v, u]


def test_an_absent_phrase_is_described_as_absent_and_has_no_mask(result: PageResult) -> None:
    described = result.description()["phrases"]
    assert isinstance(described, list)
    assert [phrase["state"] for phrase in described] == ["found", "found", "absent"]
    assert described[2]["presence"] == 0.03
    assert (np.ptp(np.asarray(result.mask_image(2, "mask")).astype(int), axis=-1) == 0).all()


def test_coarse_masks_are_there_where_a_refiner_made_better_ones(
    tiny_sam: Callable[[], Sam], square_image: Image.Image
) -> None:
    plain = GroundedVLM.untrained(FakeAdapter(), base_width=4)
    refiner = SAMRefiner(SegmentAnything(tiny_sam()), None, use_text=False)
    vlm = GroundedVLM(plain.adapter, MaskDecoder(plain.decoder.unet, refiner=refiner))
    prompt = Prompt.describe(square_image, "a red square", ["a red square"])
    result = PageResult.of(vlm, prompt, vlm.ground_all([prompt])[0])
    with torch.no_grad():
        (logits,) = vlm.mask_logits([prompt])
    assert logits.refined is not None
    coarse = place_map(logits.coarse, logits.box, (110, 160), outside=-1) > 0
    assert list(result.masks) == ["coarse", "refined"]
    assert (result.masks["coarse"][0].unpacked() == coarse[0].numpy()).all()
    assert (result.masks["refined"][0].unpacked() == (logits.refined[0] > 0).numpy()).all()


def test_without_a_refiner_there_is_one_mask(result: PageResult) -> None:
    assert list(result.masks) == ["mask"]


def test_the_oldest_result_goes_where_there_are_too_many(result: PageResult) -> None:
    results = Results(WebLimits(most_results=2))
    first, second, third = (results.keep(result) for _ in range(3))
    assert results.get(second) is results.get(third) is result
    with pytest.raises(RefusedError, match=r"no longer kept\. Ground the sentence again") as refused:
        results.get(first)
    assert refused.value.status == 404


def test_memory_is_bounded_and_the_newest_result_is_kept_all_the_same(result: PageResult) -> None:
    results = Results(WebLimits(most_result_bytes=2 * result.nbytes))
    for _ in range(3):
        results.keep(result)
    assert len(results) == 2
    tight = Results(WebLimits(most_result_bytes=1))
    assert tight.get(tight.keep(result)) is result


def test_words_on_a_colour_are_black_or_white_by_contrast() -> None:
    assert ink_on((255, 255, 0)) == "#000000"
    assert ink_on((0, 0, 128)) == "#ffffff"
