"""What a decoder reads of a backbone: all heads or some, in their order, and hidden states where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.channels import stack_channels
from vlm_adapters.decoder.features import FeatureRequest, PhraseFeatures
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.refiner import UntrainedRefiner
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import DecoderError, RequestError
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

PROMPT = Prompt.describe(Image.new("RGB", (64, 48), "red"), "a red circle and a star", ["a red circle", "a star"])
HEADS = ((2, 1), (0, 0))


def extracted(request: FeatureRequest, *, coarse: bool = False) -> list[Grids]:
    adapter = FakeAdapter(coarse=coarse)
    return adapter.extract(adapter.preprocess([PROMPT]), request.grids)[0]


def test_the_channels_are_the_maps_of_the_chosen_heads_in_their_order() -> None:
    request = FeatureRequest.of_heads(HEADS)
    maps = PhraseFeatures.of(extracted(request), request, FakeAdapter().info).maps
    (whole,) = extracted(FeatureRequest())
    for channel, (layer, head) in enumerate(HEADS):
        assert torch.equal(maps[:, channel], whole.attention[:, whole.layers.index(layer), whole.heads.index(head)])


def test_of_two_grids_the_coarse_ones_heads_come_first() -> None:
    request = FeatureRequest.of_heads(HEADS)
    grids = extracted(request, coarse=True)
    maps = PhraseFeatures.of(grids, request, FakeAdapter(coarse=True).info).maps
    both = stack_channels(grids)[0]
    assert maps.shape[1] == request.channels(FakeAdapter(coarse=True).info) == 4
    assert torch.equal(maps[:, [0, 2]], both[:, [3, 4 + 3]])


def test_only_the_layers_of_the_chosen_heads_are_asked_for() -> None:
    assert FeatureRequest.of_heads(HEADS).grids == GridRequest(layers=[0, 2], heads=[0, 1])


def test_a_head_that_was_not_extracted_is_an_error() -> None:
    with pytest.raises(DecoderError, match=r"The heads 5\.0 \(layer\.head\) were not extracted"):
        stack_channels(extracted(FeatureRequest()), [(0, 0), (5, 0)])


def test_a_layer_that_the_backbone_lacks_is_an_error() -> None:
    with pytest.raises(RequestError, match="Layer 1 is not available"):
        FeatureRequest.of_heads([(1, 0)]).channels(FakeAdapter().info)


def test_hidden_states_come_for_every_layer_and_only_when_asked_for() -> None:
    info = FakeAdapter().info
    asked, plain = FeatureRequest(hidden=True), FeatureRequest()
    hidden = PhraseFeatures.of(extracted(asked), asked, FakeAdapter().info).hidden
    assert [states.shape for states in hidden] == [
        (info.num_layers, len(phrase.text), info.hidden_size) for phrase in PROMPT.phrases
    ]
    assert PhraseFeatures.of(extracted(plain), plain, FakeAdapter().info).hidden == ()


def test_a_decoder_of_some_heads_comes_back_from_disk_with_them(tmp_path: Path) -> None:
    before = GroundedVLM.untrained(FakeAdapter(), FeatureRequest.of_heads(HEADS), base_width=2)
    before.save_pretrained(tmp_path)
    after = GroundedVLM.from_pretrained(tmp_path, adapter=FakeAdapter())
    assert after.decoder.request == before.decoder.request
    with torch.no_grad():
        assert torch.equal(after.mask_logits([PROMPT])[0].coarse, before.mask_logits([PROMPT])[0].coarse)


def test_a_refiner_without_the_encoded_image_is_an_error() -> None:
    features = PhraseFeatures(torch.ones(1, 2, 3, 3), (0, 0, 30, 30))
    refiner = UntrainedRefiner(None)  # type: ignore[arg-type]
    with pytest.raises(DecoderError, match=r"has 0 of 1\. Give SegmentAnything\.encode"):
        MaskDecoder(UNet(UNetConfig(2, base_width=2)), refiner=refiner)([features])


def test_images_of_different_grids_are_each_decoded_as_they_are_alone() -> None:
    torch.manual_seed(0)
    unet = UNet(UNetConfig(2, base_width=2)).eval()
    shapes = [(1, 2, 3, 4), (2, 2, 5, 3), (0, 2, 3, 4), (3, 2, 3, 4)]
    features = [PhraseFeatures(torch.rand(shape), (0, 0, 30, 30)) for shape in shapes]
    with torch.no_grad():
        for found, of_image in zip(MaskDecoder(unet)(features), features, strict=True):
            torch.testing.assert_close(found.coarse, unet(of_image.maps), rtol=1e-5, atol=1e-4)
            assert found.maps is of_image.maps
