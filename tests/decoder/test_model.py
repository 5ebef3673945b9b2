"""The mask decoder as a module: its logits at an image's size, its parameters, and the way to disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import Sam
from torch import nn

from vlm_adapters.decoder import (
    FeatureRequest,
    MaskDecoder,
    MaskLogits,
    SAMRefiner,
    SegmentAnything,
    UNet,
    UNetConfig,
    UntrainedRefiner,
)
from vlm_adapters.decoder.logits import binary_masks
from vlm_adapters.decoder.sam.geometry import Frame
from vlm_adapters.decoder.sam.refiner import RefinedLogits
from vlm_adapters.errors import DecoderError
from vlm_adapters.testing.fakes import FakeAdapter

TinySam = Callable[[], Sam]
INFO = FakeAdapter().info


def test_coarse_logits_at_the_images_size_end_where_the_grid_ends() -> None:
    logits = MaskLogits(torch.ones(1, 1, 1, 2), torch.tensor([[[3.0, 3.0]]]), (0, 0, 4, 2), None)
    placed = logits.at_image_size((2, 6))
    assert placed.tolist() == [[[3.0] * 4 + [float("-inf")] * 2] * 2]
    assert binary_masks(placed).tolist() == [[[True] * 4 + [False] * 2] * 2]


def test_refined_logits_are_taken_before_the_coarse_ones() -> None:
    decoded = torch.rand(1, 6, 6)
    refined = RefinedLogits(decoded, Frame((2, 6), side=6))
    logits = MaskLogits(torch.ones(1, 1, 1, 2), torch.tensor([[[3.0, 3.0]]]), (0, 0, 6, 2), refined)
    assert torch.equal(logits.at_image_size((2, 6)), decoded[:, :2])
    assert logits.coarse_at_image_size((2, 6)).unique().tolist() == [3.0]


def test_a_probability_of_a_half_is_not_in_the_mask() -> None:
    assert binary_masks(torch.tensor([-0.1, 0.0, 0.1])).tolist() == [False, False, True]


def test_hidden_states_are_read_where_the_refiner_is_prompted_with_words(tiny_sam: TinySam) -> None:
    unet = UNet(UNetConfig(1, base_width=2))
    for text in (True, False):
        refiner = SAMRefiner.of(SegmentAnything(tiny_sam()), INFO, use_text=text)
        assert MaskDecoder(unet, FeatureRequest(hidden=not text), refiner).request.hidden == text
    assert not MaskDecoder(unet, FeatureRequest(hidden=True)).request.hidden


def test_everything_but_the_image_encoder_learns(tiny_sam: TinySam) -> None:
    decoder = MaskDecoder(UNet(UNetConfig(1, base_width=2)), None, SAMRefiner.of(SegmentAnything(tiny_sam()), INFO))
    fixed = {name for name, _ in decoder.named_parameters()} - set(decoder.trainable_parameters())
    assert fixed
    assert all(name.startswith("refiner.sam.model.image_encoder.") for name in fixed)


def test_a_decoder_comes_back_from_disk_in_eval_mode(tiny_sam: TinySam, tmp_path: Path) -> None:
    before = MaskDecoder.untrained(INFO, base_width=2, depth=2)
    before.save(tmp_path, INFO)
    after = MaskDecoder.load(tmp_path, INFO)
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    assert not after.training
    assert isinstance(MaskDecoder.load(tmp_path, INFO, SegmentAnything(tiny_sam())).refiner, UntrainedRefiner)


def test_a_head_that_is_not_a_u_net_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(DecoderError, match=r"A Conv2d in the place of the U-Net .* Save its state_dict\(\)"):
        MaskDecoder(nn.Conv2d(1, 1, 1)).save(tmp_path, INFO)
    assert not list(tmp_path.iterdir())
