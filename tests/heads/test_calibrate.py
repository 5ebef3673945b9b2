"""Heads are chosen with masks and without, where one of them is known to be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch

from vlm_adapters import load_adapter
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.errors import DataError, DecoderError
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate, pool_masks
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import load_coarse_fake, load_fake

TINY = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlm_adapters.backbone.protocol import BackboneAdapter


@pytest.mark.parametrize("criterion", ["iou", "pointing"])
def test_masks_choose_the_head_that_looks(
    planted: BackboneAdapter, squares: list[Sample], criterion: Literal["iou", "pointing"]
) -> None:
    profile = calibrate(planted, CalibrationSet.of_scenes(squares, 5, labelled=True), criterion=criterion)
    assert (profile.heads[0].layer, profile.heads[0].head) == (2, 1)
    assert profile.heads[0].value > 0.7
    assert (profile.criterion, profile.source, profile.samples, profile.seed) == (criterion, "scenes", 4, 5)
    assert (profile.backbone.checkpoint, profile.backbone.revision) == ("acme/planted", "abc123")
    assert 0 < profile.threshold < 1
    for sample in squares:
        for found, mask in zip(
            HeadGrounder(planted, profile).ground_all([sample.prompt])[0].phrases, sample.masks, strict=True
        ):
            assert mask_iou(found.mask, mask) > 0.7


def test_without_masks_the_head_that_follows_phrases_is_chosen_alone(
    planted: BackboneAdapter, squares: list[Sample]
) -> None:
    profile = calibrate(planted, CalibrationSet.of_scenes(squares, 5, labelled=False))
    assert [(head.layer, head.head) for head in profile.heads] == [(2, 1)]
    assert profile.criterion == "following"
    assert profile.heads[0].value > 0.8
    assert {(head.layer, head.head) for head in profile.others} == {(0, 0), (0, 1), (2, 0)}
    assert all(abs(head.value) < 0.4 for head in profile.others)
    for sample in squares:
        for found, mask in zip(
            HeadGrounder(planted, profile).ground_all([sample.prompt])[0].phrases, sample.masks, strict=True
        ):
            assert mask_iou(found.mask, mask) > 0.6  # the height that masks would choose is not known


@pytest.mark.parametrize("labelled", [True, False])
def test_sharp_heads_in_corners_are_not_chosen(
    cornered: BackboneAdapter, squares: list[Sample], *, labelled: bool
) -> None:
    profile = calibrate(cornered, CalibrationSet.of_scenes(squares, 5, labelled=labelled))
    assert [(head.layer, head.head) for head in profile.heads] == [(2, 0)]


def test_no_more_heads_are_taken_than_asked_for(planted: BackboneAdapter, squares: list[Sample]) -> None:
    for labelled in (True, False):
        profile = calibrate(planted, CalibrationSet.of_scenes(squares, 5, labelled=labelled), most=1)
        assert [(head.layer, head.head) for head in profile.heads] == [(2, 1)]


def test_a_peak_must_stand_out_more_than_in_grey_images_and_its_own_are_found(
    planted: BackboneAdapter, squares: list[Sample]
) -> None:
    profile = calibrate(planted, CalibrationSet.of_scenes(squares, 5, labelled=True), most=1)
    assert profile.least_prominence > 0
    grounder = HeadGrounder(planted, profile)
    for sample in squares:
        assert all(found.box for found in grounder.ground_all([sample.prompt])[0].phrases)


def test_calibration_can_be_repeated(planted: BackboneAdapter, squares: list[Sample]) -> None:
    data = CalibrationSet.of_scenes(squares, 5, labelled=True)
    assert calibrate(planted, data) == calibrate(planted, data)


def test_images_without_phrases_are_refused(squares: list[Sample]) -> None:
    with pytest.raises(DataError, match="my folder has no phrase to choose heads by"):
        CalibrationSet([Prompt.describe(squares[0].image, "a red square")], None, "my folder")
    with pytest.raises(DataError, match="scenes has no phrase"):
        CalibrationSet([], None, "scenes")


def test_cells_that_a_mask_covers_half_show_it() -> None:
    mask = np.zeros((1, 20, 30), np.bool_)
    mask[0, :10, :15] = True
    assert pool_masks(mask, (0, 0, 30, 20), (2, 3)).tolist() == [[[True, True, False], [False, False, False]]]


def test_a_thing_smaller_than_half_a_cell_has_one_cell() -> None:
    mask = np.zeros((2, 20, 30), np.bool_)
    mask[0, 12:15, 22:25] = True
    pooled = pool_masks(mask, (0, 0, 30, 20), (2, 3))
    assert pooled[0].nonzero().tolist() == [[1, 2]]
    assert not pooled[1].any()


def test_masks_are_pooled_on_padded_and_on_cropped_grids() -> None:
    mask = np.ones((1, 20, 40), np.bool_)
    padded = pool_masks(mask, (0, -10, 40, 30), (4, 4))[0]
    assert torch.equal(padded.any(dim=1), torch.tensor([False, True, True, False]))
    assert bool(pool_masks(mask, (10, 0, 30, 20), (2, 2)).all())


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("load", [load_fake, load_coarse_fake], ids=["one grid", "coarse and fine"])
def test_no_head_of_a_model_with_random_weights_follows_phrases(
    load: Callable[[], BackboneAdapter], *, labelled: bool
) -> None:
    profile = calibrate(load(), CalibrationSet.of_scenes(Scenes(4, seed=6), 6, labelled=labelled))
    assert profile.heads == []
    with pytest.raises(DecoderError, match=r"none of its heads follows phrases.*Train a decoder"):
        HeadGrounder(load(), profile)


@pytest.mark.parametrize("name", TINY)
def test_heads_of_an_embedded_model_follow_phrases_until_its_weights_are_random(name: str) -> None:
    adapter, scenes = load_adapter(name), CalibrationSet.of_scenes(Scenes(8, seed=6), 6, labelled=False)
    assert calibrate(adapter, scenes).heads
    torch.manual_seed(0)
    adapter.model.load_state_dict(type(adapter.model)(adapter.model.config).state_dict())
    assert calibrate(adapter, scenes).heads == []


@pytest.mark.parametrize("load", [load_fake, load_coarse_fake], ids=["one grid", "coarse and fine"])
def test_any_adapter_can_be_calibrated_and_grounded(load: Callable[[], BackboneAdapter]) -> None:
    adapter, scenes = load(), Scenes(2, seed=6)
    for labelled in (True, False):
        profile = calibrate(adapter, CalibrationSet.of_scenes(scenes, 6, labelled=labelled))
        ranked = [*profile.heads, *profile.others]
        assert ranked
        assert all(head.layer in adapter.info.attention_layers for head in ranked)
        usable = profile.model_copy(update={"heads": ranked[:3]})
        (grounding,) = HeadGrounder(adapter, usable).ground_all([scenes[0].prompt])
        assert [found.mask.shape for found in grounding.phrases] == [scenes[0].masks.shape[1:]] * len(scenes[0].masks)
