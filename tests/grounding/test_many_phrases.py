"""Many phrases: no tensor grows with their number to the image's size, and chunks give what all at once give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segment_anything.modeling import Sam
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from vlm_adapters.decoder import unet
from vlm_adapters.decoder.channels import agreeing_maps
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam import geometry, refiner
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, UntrainedRefiner
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.geometry import place_map, region_of
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.result import PackedMask
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

TinySam = Callable[[], Sam]
SIZE = (300, 450)
KINDS = ["coarse", "trained", "untrained"]


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is computed while it is on."""

    numbers = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return found


def prompt(phrases: int) -> Prompt:
    pixels = np.random.default_rng(3).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    text = " and ".join(["a cat"] * phrases)
    return Prompt.describe(Image.fromarray(pixels), text, [(10 * i, 10 * i + 5) for i in range(phrases)])


def grounder(kind: str, tiny_sam: TinySam) -> GroundedVLM:
    adapter = FakeAdapter()
    torch.manual_seed(0)
    sam = SegmentAnything(tiny_sam())
    text = TextPrompt(adapter.info.hidden_size, adapter.info.num_layers, 16)
    refiners = {"coarse": None, "trained": SAMRefiner(sam, text), "untrained": UntrainedRefiner(sam)}
    net = UNet(UNetConfig(adapter.info.channels, base_width=4, depth=2, canvas=12))
    return GroundedVLM(adapter, MaskDecoder(net, refiner=refiners[kind])).eval()


def largest(vlm: GroundedVLM, phrases: int) -> int:
    asked = prompt(phrases)
    with torch.no_grad():
        features = vlm.features([asked])
        encoded = [vlm.decoder.refiner.sam.encode(asked.images[0])] if vlm.decoder.refiner else []
        with LargestTensor() as seen:
            (logits,) = vlm.decoder(features, encoded)
            grounding = vlm.grounding_of(asked, logits)
    assert len(grounding.phrases) == phrases
    return seen.numbers


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_grows_to_all_phrases_at_the_images_size(
    kind: str, tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet, "_NUMBERS_AT_ONCE", 2**15)
    vlm = grounder(kind, tiny_sam)
    few, many = largest(vlm, 32), largest(vlm, 160)
    assert many == few or many < 2 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_chunks_are_those_of_all_at_once(
    kind: str, tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, asked = grounder(kind, tiny_sam), prompt(11)
    for module in (geometry, refiner):
        monkeypatch.setattr(module, "PHRASES_AT_ONCE", 100)
    with torch.no_grad():
        (expected,) = vlm.mask_logits([asked])
        for module in (geometry, refiner):
            monkeypatch.setattr(module, "PHRASES_AT_ONCE", 3)
        monkeypatch.setattr(unet, "_NUMBERS_AT_ONCE", 1)
        (found,) = vlm.mask_logits([asked])
    torch.testing.assert_close(found.coarse, expected.coarse)
    torch.testing.assert_close(found.at_image_size(SIZE), expected.at_image_size(SIZE), atol=1e-4, rtol=1e-5)
    for phrase, logits in zip(vlm.grounding_of(asked, expected).phrases, expected.at_image_size(SIZE), strict=True):
        probability = logits.sigmoid().numpy()
        assert np.array_equal(phrase.mask, probability > 0.5)
        assert phrase.score == (float(probability[probability > 0.5].mean()) if phrase.box else 0.0)


def test_maps_of_many_phrases_are_those_of_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, mask = torch.rand(37, 9, 4, 5, generator=generator), torch.rand(37, 8, 8, generator=generator)
    one_by_one = [agreeing_maps(maps[i : i + 1], mask[i : i + 1]) for i in range(37)]
    assert torch.equal(agreeing_maps(maps, mask), torch.cat(one_by_one))


def test_equal_images_of_a_batch_are_encoded_once(tiny_sam: TinySam, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, seen = grounder("trained", tiny_sam), []
    encode = SegmentAnything.encode

    def counted(sam: SegmentAnything, image: Image.Image) -> object:
        seen.append(image)
        return encode(sam, image)

    monkeypatch.setattr(SegmentAnything, "encode", counted)
    one, other = vlm.ground_all([prompt(2), prompt(3)])
    assert len(seen) == 1
    for found, alone in ((one, vlm.ground_all([prompt(2)])[0]), (other, vlm.ground_all([prompt(3)])[0])):
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(found.phrases, alone.phrases, strict=True))


SIDES = st.integers(1, 60)
BOXES = st.one_of(st.none(), st.tuples(*[st.floats(-20, 10)] * 2, *[st.floats(11, 80)] * 2))


@settings(max_examples=300)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(SIDES, SIDES), BOXES, st.integers(0, 2**32 - 1))
def test_a_region_is_what_it_cuts_out_and_nothing_is_beyond_it(
    cells: tuple[int, int], size: tuple[int, int], box: tuple[float, float, float, float] | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(1, *cells, generator=generator) - seed % 3
    where = box or (0, 0, size[1], size[0])
    whole = place_map(maps, where, size, outside=float("-inf"))
    region = region_of(maps[0] > 0, where, size) or (0, 0, 0, 0)
    left, top, right, bottom = region
    part = place_map(maps, where, size, outside=float("-inf"), region=region)
    assert torch.equal(part, whole[:, top:bottom, left:right])
    mask = whole.sigmoid() > 0.5
    mask[:, top:bottom, left:right] = False
    assert not mask.any()


@given(SIDES, SIDES, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_packed_mask_is_the_mask(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share**4
    packed = PackedMask.of(mask)
    assert np.array_equal(packed.unpacked(), mask)
    assert packed.area == mask.sum()
    assert packed.box == Image.fromarray(mask).getbbox()
    assert packed.image().tobytes() == Image.fromarray(mask).tobytes()
    assert packed.bits.nbytes <= height * (width + 7) // 8 + height


def test_a_packed_rectangle_lies_where_its_corner_is() -> None:
    packed = PackedMask.of(np.array([[False, True], [True, True]]), (5, 9), (4, 2))
    expected = np.zeros((5, 9), np.bool_)
    expected[2:4, 4:6] = [[False, True], [True, True]]
    assert np.array_equal(packed.unpacked(), expected)
    assert packed.box == (4, 2, 6, 4)
