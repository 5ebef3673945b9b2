"""Large images and many phrases: the same results as from all phrases at once, in the memory of one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.decoder.channels import agreeing_maps
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.geometry import place_map
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.result import PhraseMap, grounded_phrase
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.heads.extraction import extract_with_neutral, maps_beside_neutral, phrase_heights
from vlm_adapters.prompt import Phrase, Prompt
from vlm_adapters.testing.fakes import FakeAdapter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlm_adapters.backbone.protocol import BackboneAdapter
    from vlm_adapters.data.sample import Sample

TEXT = "a red square and a green square, a cat on a mat"
PHRASES = ["a red square", "a green square", "a cat", "a mat"]
SIZES = [(30, 50), (331, 257), (640, 480)]


def prompt(size: tuple[int, int]) -> Prompt:
    pixels = np.random.default_rng(3).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Prompt.describe(Image.fromarray(pixels), TEXT, PHRASES)


def decoder(adapter: BackboneAdapter) -> MaskDecoder:
    torch.manual_seed(0)
    return MaskDecoder(UNet(UNetConfig(adapter.info.channels, base_width=4, depth=2))).eval()


def scaled(placed: NDArray[np.float32]) -> NDArray[np.float32]:
    return placed / max(float(placed.max()), 1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_masks_scores_and_maps_are_those_of_all_phrases_placed_together(size: tuple[int, int]) -> None:
    adapter = FakeAdapter()
    vlm, asked = GroundedVLM(adapter, decoder(adapter)), prompt(size)
    with torch.no_grad():
        (logits,) = vlm.mask_logits([asked])
    probabilities = logits.at_image_size(size).sigmoid().numpy()
    heat = place_map(agreeing_maps(logits.maps, logits.coarse.sigmoid()), logits.box, size).numpy()
    (grounding,) = vlm.ground_all([asked])
    for found, probability, attention in zip(grounding.phrases, probabilities, heat, strict=True):
        assert np.array_equal(found.mask, probability > 0.5)
        assert found.score == (float(probability[probability > 0.5].mean()) if found.mask.any() else 0.0)
        assert np.array_equal(found.map, scaled(attention))
        assert found.map.dtype == np.float32
    assert np.array_equal(vlm.masks([asked])[0]["mask"], probabilities > 0.5)


def test_maps_of_heads_are_those_of_all_phrases_placed_together(
    planted: BackboneAdapter, squares: list[Sample]
) -> None:
    data = CalibrationSet([sample.prompt for sample in squares], [sample.masks for sample in squares], "squares")
    grounder, asked = HeadGrounder(planted, calibrate(planted, data)), squares[0].prompt
    ((grids, neutral),) = extract_with_neutral(planted, [asked], grounder.profile.neutral, _request(grounder))
    relative, box = maps_beside_neutral(grids, neutral, grounder.profile.indices)
    size = squares[0].image.height, squares[0].image.width
    placed = place_map(phrase_heights(relative, grounder.profile), box, size).numpy()
    for found, attention in zip(grounder.ground_all([asked])[0].phrases, placed, strict=True):
        assert np.array_equal(found.map, scaled(attention))
        assert np.array_equal(found.mask, attention > grounder.profile.threshold)


def test_a_map_of_pixels_is_placed_as_it_is() -> None:
    filled = np.zeros((7, 9), np.bool_)
    filled[2:4, 3:8] = True
    found = grounded_phrase(Phrase("a cat", 0, 5), filled.astype(np.float32), PhraseMap.of_pixels(filled))
    assert np.array_equal(found.map, filled.astype(np.float32))
    assert found.map.dtype == np.float32


def test_a_map_at_half_the_size_is_that_of_the_image_at_half_the_size() -> None:
    values = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    large = PhraseMap(values, (-8.0, 0.0, 88.0, 72.0), (60, 80)).placed((30, 40))
    small = PhraseMap(values, (-4.0, 0.0, 44.0, 36.0), (30, 40)).placed()
    np.testing.assert_allclose(large, small, atol=1e-6)


def test_a_large_map_is_placed_in_bands_with_the_values_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    whole = place_map(maps, (-3, 2, 61, 40), (43, 57), outside=-1.0)
    monkeypatch.setattr("vlm_adapters.geometry._PIXELS_AT_ONCE", 4 * 57)
    assert torch.equal(place_map(maps, (-3, 2, 61, 40), (43, 57), outside=-1.0), whole)


def test_gradient_flows_through_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, weights = torch.rand(3, 5, requires_grad=True), torch.rand(43, 57)
    (expected,) = torch.autograd.grad((place_map(maps, (0, 0, 57, 43), (43, 57)) * weights).sum(), maps)
    monkeypatch.setattr("vlm_adapters.geometry._PIXELS_AT_ONCE", 4 * 57)
    (found,) = torch.autograd.grad((place_map(maps, (0, 0, 57, 43), (43, 57)) * weights).sum(), maps)
    torch.testing.assert_close(found, expected)


MANY = """
import resource
import numpy as np
import torch
from PIL import Image
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.testing.fakes import FakeAdapter

adapter = FakeAdapter()
vlm = GroundedVLM(adapter, MaskDecoder(UNet(UNetConfig(adapter.info.channels, base_width=4, depth=2))).eval())
text = " and ".join(["a cat"] * {phrases})
spans = [(10 * i, 10 * i + 5) for i in range({phrases})]
vlm.ground(Image.new("RGB", (64, 48)), text, spans)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vlm.ground(Image.new("RGB", (1500, 1000)), text, spans)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_many_phrases_take_the_memory_of_their_masks_and_of_one_phrase() -> None:
    run = subprocess.run([sys.executable, "-c", MANY.format(phrases=60)], capture_output=True, text=True, check=True)
    masks = 60 * 1500 * 1000 / 8 / 2**10  # KiB, packed; all at once took 16 bytes a pixel and phrase: 1,400 MiB
    assert int(run.stdout) < masks + 80 * 2**10


def _request(grounder: HeadGrounder) -> GridRequest:
    return GridRequest.of_heads(grounder.profile.indices)
