"""From maps to masks, boxes and scores, on maps that are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import DecoderError, ImageError, PhraseError
from vlm_adapters.geometry import Box
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.prompt import Message, Prompt

IMAGE = Image.new("RGB", (50, 30), "white")
TEXT = "a cat and a dog"
INFO = BackboneInfo("fixed", "acme/fixed", "abc123", 2, (0, 1), 2, 8, (10, 10))


def grids_of(maps: Tensor, box: Box, image: int = 0) -> Grids:
    """`maps (P, L, n, h, w)` over `box`."""
    phrases, layers, heads, h, w = maps.shape
    return Grids(
        grid=ImageGrid(torch.arange(h * w).view(h, w), box, image),
        attention=maps,
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
        row_phrases=tuple(range(phrases)),
        hidden=torch.zeros(0, 8, h, w),
    )


class FixedMaps:
    """Speaks the protocol; `extract` returns the grids it was given, one list per prompt."""

    def __init__(self, *extracted: Sequence[Grids], info: BackboneInfo = INFO) -> None:
        self.name = info.model_type
        self.info = replace(info, grids=tuple(each.grid.name for each in extracted[0]) if extracted else ("fine",))
        self.extracted = extracted
        self.requests: list[GridRequest] = []

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        positions = tuple(tuple(torch.zeros(1, dtype=torch.long) for _ in prompt.phrases) for prompt in prompts)
        return BackboneInputs(tuple(prompts), {}, positions)

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        return [[grids.grid for grids in of_prompt] for of_prompt in self.extracted[: len(inputs.prompts)]]

    def extract(self, inputs: BackboneInputs, request: GridRequest) -> list[list[Grids]]:
        self.requests.append(request)
        return [list(of_prompt) for of_prompt in self.extracted[: len(inputs.prompts)]]


class Threshold(nn.Module):
    """Logit `high` where the first channel is above a half, else `low`."""

    def __init__(self, high: float = 4.0, low: float = -4.0) -> None:
        super().__init__()
        self.config = UNetConfig(channels=1)
        self.high, self.low = high, low
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        high: Tensor = torch.where(maps[:, 0] > 0.5, self.high, self.low)
        return high


def threshold() -> MaskDecoder:
    """A decoder whose U-Net cuts the first map at a half."""
    return MaskDecoder(Threshold())


def spots(cells: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Tensor:
    """`(P, 1, 1, h, w)`: the map of phrase p is 1 in its cell, 0 elsewhere."""
    maps = torch.zeros(len(cells), 1, 1, *shape)
    for phrase, cell in enumerate(cells):
        maps[phrase, 0, 0][cell] = 1
    return maps


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_every_mask_lies_where_its_map_has_its_mass() -> None:
    adapter = FixedMaps([grids_of(spots([(0, 4), (2, 1)], (3, 5)), (0, 0, 50, 30))])
    cat, dog = GroundedVLM(adapter, threshold()).ground(IMAGE, TEXT, ["a cat", "a dog"]).phrases
    assert cat.mask[2:8, 42:48].all()
    assert dog.mask[22:28, 12:18].all()
    assert not (cat.mask & dog.mask).any()
    assert cat.mask.shape == (30, 50)


def test_mask_box_and_score_by_hand() -> None:
    # Logits 4, -4 in cells of 10 pixels: between the centres of two cells they fall by 0.8 a pixel. Columns 0 to
    # 4 are 4, then 3.6, 2.8, 2.0, 1.2, 0.4; column 10 is the first below zero.
    adapter = FixedMaps([grids_of(spots([(0, 0)], (1, 2)), (0, 0, 20, 10))])
    (found,) = GroundedVLM(adapter, threshold()).ground(Image.new("RGB", (20, 10)), TEXT, ["a cat"]).phrases
    assert found.box == (0, 0, 10, 10)
    assert found.mask.tolist() == [[True] * 10 + [False] * 10] * 10
    assert found.score == pytest.approx(
        np.mean([sigmoid(z) for z in (4, 4, 4, 4, 4, 3.6, 2.8, 2.0, 1.2, 0.4)]), abs=1e-5
    )


def test_the_box_excludes_its_right_and_lower_end() -> None:
    adapter = FixedMaps([grids_of(spots([(1, 2)], (3, 5)), (0, 0, 50, 30))])
    (found,) = GroundedVLM(adapter, threshold()).ground(IMAGE, TEXT, ["a cat"]).phrases
    assert found.box is not None
    left, top, right, bottom = found.box
    assert (left, top, right, bottom) == (20, 10, 30, 20)
    inside = np.zeros_like(found.mask)
    inside[top:bottom, left:right] = True
    assert not (found.mask & ~inside).any()
    assert found.mask[top].any()
    assert found.mask[bottom - 1].any()
    assert found.mask[:, left].any()
    assert found.mask[:, right - 1].any()


def test_where_nothing_is_found_there_is_no_box_and_the_score_is_zero() -> None:
    adapter = FixedMaps([grids_of(torch.full((1, 1, 1, 3, 5), 0.1), (0, 0, 50, 30))])
    (found,) = GroundedVLM(adapter, threshold()).ground(IMAGE, TEXT, ["a cat"]).phrases
    assert (found.box, found.score, bool(found.mask.any())) == (None, 0.0, False)


def test_a_mask_in_the_padding_is_cropped_away() -> None:
    # A square box around a wide image: the upper and the lower cells lie in the padding.
    adapter = FixedMaps([grids_of(spots([(0, 1), (1, 1), (2, 1)], (3, 3)), (0, -30, 90, 60))])
    above, within, below = (
        GroundedVLM(adapter, threshold()).ground(Image.new("RGB", (90, 30)), "a b c", [*"abc"]).phrases
    )
    assert above.box is None
    assert below.box is None
    assert within.mask.shape == (30, 90)
    assert within.box == (30, 0, 60, 30)


def test_nothing_is_found_outside_the_box_of_a_crop() -> None:
    adapter = FixedMaps([grids_of(torch.ones(1, 1, 1, 2, 2), (10, 5, 40, 25))])
    (found,) = GroundedVLM(adapter, threshold()).ground(IMAGE, TEXT, ["a cat"]).phrases
    assert found.box == (10, 5, 40, 25)
    assert found.mask.sum() == 30 * 20
    assert found.map[:5].max() == 0


def test_the_map_is_the_mean_of_the_four_maps_that_lie_most_on_the_mask() -> None:
    # The mask is the left cell. Two heads look there, one of them weakly; two look half there; one looks elsewhere.
    maps = torch.tensor([[[[[0.9, 0.0]], [[0.001, 0.0]], [[0.2, 0.2]], [[0.1, 0.1]], [[0.0, 0.9]]]]])
    adapter = FixedMaps([grids_of(maps, (0, 0, 20, 10))])
    (found,) = GroundedVLM(adapter, threshold()).ground(Image.new("RGB", (20, 10)), TEXT, ["a cat"]).phrases
    assert found.map.dtype == np.float32
    # Left (1 + 1 + 1/2 + 1/2) / 4, right (0 + 0 + 1/2 + 1/2) / 4; the largest becomes 1.
    np.testing.assert_allclose(found.map[:, :5], 1.0, atol=1e-6)
    np.testing.assert_allclose(found.map[:, 15:], 1 / 3, atol=1e-6)


def test_a_map_of_zeros_stays_zero() -> None:
    adapter = FixedMaps([grids_of(torch.zeros(1, 1, 1, 2, 2), (0, 0, 50, 30))])
    (found,) = GroundedVLM(adapter, threshold()).ground(IMAGE, TEXT, ["a cat"]).phrases
    assert np.isfinite(found.map).all()
    assert found.map.max() == 0


def test_no_phrases_give_no_masks() -> None:
    adapter = FixedMaps([grids_of(torch.zeros(0, 1, 1, 3, 5), (0, 0, 50, 30))])
    grounding = GroundedVLM(adapter, MaskDecoder(UNet(UNetConfig(1, base_width=2, depth=2))).eval()).ground(
        IMAGE, TEXT, []
    )
    assert grounding.phrases == ()
    assert grounding.text == TEXT


def test_a_batch_keeps_the_order_of_prompts_and_phrases() -> None:
    adapter = FixedMaps(
        [grids_of(spots([(0, 0), (0, 1)], (1, 2)), (0, 0, 50, 30))], [grids_of(spots([(1, 0)], (2, 1)), (0, 0, 20, 40))]
    )
    prompts = [
        Prompt.describe(IMAGE, TEXT, ["a dog", "a cat"]),
        Prompt.describe(Image.new("RGB", (20, 40)), "b", ["b"]),
    ]
    first, second = GroundedVLM(adapter, threshold()).ground_all(prompts)
    assert [(g.phrase.text, g.box) for g in first.phrases] == [("a dog", (0, 0, 25, 30)), ("a cat", (25, 0, 50, 30))]
    assert [(g.phrase.text, g.box) for g in second.phrases] == [("b", (0, 20, 20, 40))]
    assert (first.image.size, second.image.size) == ((50, 30), (20, 40))


def test_of_several_images_the_first_is_grounded() -> None:
    other = grids_of(spots([(0, 1)], (1, 2)), (0, 0, 8, 8), image=1)
    adapter = FixedMaps([grids_of(spots([(0, 0)], (1, 2)), (0, 0, 50, 30)), other])
    prompt = Prompt.chat([Message("user", (IMAGE, Image.new("RGB", (8, 8)), "cat"))], ["cat"])
    (grounding,) = GroundedVLM(adapter, threshold()).ground_all([prompt])
    assert grounding.image.size == (50, 30)
    assert grounding.phrases[0].box == (0, 0, 25, 30)


def test_the_adapter_is_asked_for_what_the_decoder_reads() -> None:
    adapter = FixedMaps([grids_of(spots([(0, 0)], (1, 2)), (0, 0, 50, 30))])
    request = GridRequest(layers=[0], heads=[1], align="predictor", reduce="max")
    GroundedVLM(adapter, MaskDecoder(Threshold(), FeatureRequest(request))).ground(IMAGE, TEXT, ["a cat"])
    assert adapter.requests == [replace(request, phrase_log_probabilities=True)]


def test_no_gradient_is_kept() -> None:
    adapter = FixedMaps([grids_of(spots([(0, 0)], (1, 2)), (0, 0, 50, 30))])
    decoder = MaskDecoder(UNet(UNetConfig(1, base_width=2, depth=2)))
    GroundedVLM(adapter, decoder).ground(IMAGE, TEXT, ["a cat"])
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_an_untrained_decoder_has_the_size_of_the_backbone() -> None:
    vlm = GroundedVLM.untrained(FixedMaps(), base_width=4)
    assert vlm.decoder.unet.config == UNetConfig(channels=INFO.channels, base_width=4)


def test_logits_of_a_size_that_was_rounded_down_are_spread_over_the_whole_image() -> None:
    unet = UNet(UNetConfig(channels=4, base_width=2))
    with torch.no_grad():
        unet.head.weight.zero_()
        unet.head.get_parameter("bias").fill_(5)
    adapter = FixedMaps([grids_of(torch.rand(1, 2, 2, 9, 31), (0, 0, 50, 30))])  # 18 x 64 logits of 18.6 x 64
    assert GroundedVLM(adapter, MaskDecoder(unet)).ground(IMAGE, TEXT, ["a cat"]).phrases[0].mask.all()


def test_a_decoder_of_another_size_is_refused() -> None:
    adapter = FixedMaps([grids_of(torch.ones(1, 2, 2, 3, 5), (0, 0, 50, 30))])
    vlm = GroundedVLM(adapter, MaskDecoder(UNet(UNetConfig(channels=5, base_width=2))))
    with pytest.raises(DecoderError, match=r"have 4 channels, and this U-Net was built for\s+5"):
        vlm.ground(IMAGE, TEXT, ["a cat"])


def test_one_map_per_token_is_refused() -> None:
    with pytest.raises(DecoderError, match='reduce="none" gives one per token'):
        MaskDecoder(Threshold(), FeatureRequest(GridRequest(reduce="none")))


def test_errors_of_image_and_phrase_come_through() -> None:
    vlm = GroundedVLM(FixedMaps(), threshold())
    with pytest.raises(PhraseError, match="'a bird' is not in the text"):
        vlm.ground(IMAGE, TEXT, ["a bird"])
    with pytest.raises(ImageError, match="does not exist"):
        vlm.ground("no/such/image.png", TEXT, ["a cat"])


def test_coarse_and_fine_maps_are_stacked_over_the_fine_grid_in_the_adapters_order() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse, fine = torch.rand(2, 2, 3, 4, 5, generator=generator), torch.rand(2, 2, 3, 9, 11, generator=generator)
    box = (0.0, 0.0, 110.0, 90.0)
    stacked, found = stack_channels([grids_of(coarse, box), grids_of(fine, box)])
    assert found == box
    resized = functional.interpolate(coarse.flatten(1, 2), (9, 11), mode="bilinear", align_corners=False)
    torch.testing.assert_close(stacked[:, :6], resized, atol=1e-5, rtol=0)
    assert torch.equal(stacked[:, 6:], fine.flatten(1, 2))


def test_the_last_grid_is_the_canvas_even_where_it_has_fewer_cells() -> None:
    # LLaVA-Next's tiles of a long and narrow image are fewer than the cells of its squashed layout.
    squashed, tiles = torch.rand(1, 1, 1, 8, 8), torch.rand(1, 1, 1, 12, 3)
    stacked, _ = stack_channels([grids_of(squashed, (0, 0, 8, 80)), grids_of(tiles, (0, 0, 8, 80))])
    assert stacked.shape == (1, 2, 12, 3)
    assert torch.equal(stacked[:, 1], tiles[:, 0, 0])


def test_grids_with_other_boxes_meet_in_the_image() -> None:
    # The coarse grid is padded to a square; its lower half lies below the image.
    coarse = torch.tensor([[1.0, 2.0], [8.0, 9.0]]).view(1, 1, 1, 2, 2)
    stacked, box = stack_channels(
        [grids_of(coarse, (0, 0, 40, 40)), grids_of(torch.zeros(1, 1, 1, 4, 8), (0, 0, 40, 20))]
    )
    assert box == (0, 0, 40, 20)
    torch.testing.assert_close(stacked[0, 0, 0], torch.tensor([1, 1, 1.125, 1.375, 1.625, 1.875, 2, 2]))
    assert stacked[0, 0, 3, 0] == pytest.approx(1 + 7 * 0.375)  # centre at 17.5 pixels, between the centres 10 and 30


def test_a_single_grid_is_taken_as_it_is() -> None:
    maps = torch.rand(2, 2, 3, 4, 5)
    stacked, box = stack_channels([grids_of(maps, (1, 2, 30, 40))])
    assert torch.equal(stacked, maps.flatten(1, 2))
    assert box == (1, 2, 30, 40)


def test_an_image_without_grids_is_refused() -> None:
    with pytest.raises(DecoderError, match="no grids for the image"):
        stack_channels([])
