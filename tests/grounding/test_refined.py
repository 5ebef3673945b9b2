"""A backbone, its decoder and a refiner as one: grounding, gradient, and the way to disk and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from segment_anything.modeling import Sam

from vlm_adapters.answer import Answer
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, UntrainedRefiner, refine_untrained
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import CoordinateFrame, place_map
from vlm_adapters.grounding.boxes import BoxGrounder
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

TinySam = Callable[[], Sam]
PROMPT = Prompt.describe(
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 90, 3), dtype=np.uint8)),
    "a red circle and a blue star",
    ["a red circle", "a blue star"],
)


def refined(sam: Sam, *, text: bool = True) -> GroundedVLM:
    adapter = FakeAdapter()
    torch.manual_seed(0)
    prompt = TextPrompt(adapter.info.hidden_size, adapter.info.num_layers, 16) if text else None
    plain = GroundedVLM.untrained(adapter, base_width=4)
    refiner = SAMRefiner(SegmentAnything(sam), prompt, use_text=text)
    return GroundedVLM(adapter, MaskDecoder(plain.decoder.unet, refiner=refiner))


def test_the_masks_are_the_refined_ones(tiny_sam: TinySam) -> None:
    vlm = refined(tiny_sam())
    with torch.no_grad():
        (logits,) = vlm.mask_logits([PROMPT])
    assert logits.refined is not None
    assert logits.refined.shape == (2, 60, 90)
    for index, phrase in enumerate(vlm.ground_all([PROMPT])[0].phrases):
        assert (phrase.mask == (logits.refined[index] > 0).numpy()).all()


def test_an_image_encoded_before_gives_the_same(tiny_sam: TinySam) -> None:
    vlm = refined(tiny_sam())
    assert vlm.decoder.refiner is not None
    with torch.no_grad():
        (first,) = vlm.mask_logits([PROMPT])
        (second,) = vlm.mask_logits([PROMPT], [vlm.decoder.refiner.sam.encode(PROMPT.images[0])])
    assert first.refined is not None
    assert second.refined is not None
    assert torch.equal(first.refined, second.refined)


def test_gradient_of_the_refined_mask_reaches_the_u_net_and_the_words_and_not_the_encoder(tiny_sam: TinySam) -> None:
    vlm = refined(tiny_sam())
    assert isinstance(vlm.decoder.refiner, SAMRefiner)
    assert vlm.decoder.refiner.text is not None
    (logits,) = vlm.mask_logits([PROMPT])
    assert logits.refined is not None
    logits.refined.square().mean().backward()  # type: ignore[no-untyped-call]
    for part in (
        vlm.decoder.unet.head.weight,
        vlm.decoder.refiner.text.layer_weights,
        vlm.decoder.refiner.text.projection.weight,
    ):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in vlm.decoder.refiner.sam.model.image_encoder.parameters())


@pytest.mark.parametrize("text", [True, False])
def test_a_refiner_comes_back_bit_for_bit(text: bool, tiny_sam: TinySam, tmp_path: Path) -> None:  # noqa: FBT001
    before = refined(tiny_sam(), text=text)
    before.decoder.eval()
    assert before.decoder.refiner is not None
    with torch.no_grad():
        for weight in before.decoder.refiner.parameters():
            if weight.requires_grad:
                weight.add_(0.01)
        expected = before.mask_logits([PROMPT])[0].refined
    before.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "refiner.safetensors") if "image_encoder" in name]
    after = GroundedVLM.from_pretrained(tmp_path, adapter=FakeAdapter(), sam=SegmentAnything(tiny_sam()))
    with torch.no_grad():
        found = after.mask_logits([PROMPT])[0].refined
    assert expected is not None
    assert found is not None
    assert torch.equal(found, expected)


def test_without_the_model_of_its_training_a_refiner_is_not_loaded(tiny_sam: TinySam, tmp_path: Path) -> None:
    refined(tiny_sam()).save_pretrained(tmp_path)
    with pytest.raises(DecoderError, match=r"trained with a refiner on ImageEncoderViT of [\d,]+ weights.*--sam FILE"):
        GroundedVLM.from_pretrained(tmp_path, adapter=FakeAdapter())
    other = tiny_sam()
    other.image_encoder.extra = torch.nn.Linear(3, 3)
    with pytest.raises(DecoderError, match=r"trained with the image encoder .* given has .* that it was trained with"):
        GroundedVLM.from_pretrained(tmp_path, adapter=FakeAdapter(), sam=SegmentAnything(other))


def test_a_refiner_of_another_backbone_is_reported(tiny_sam: TinySam, tmp_path: Path) -> None:
    refined(tiny_sam()).save_pretrained(tmp_path)
    wider: Any = FakeAdapter()
    wider.info = replace(wider.info, hidden_size=99)
    with pytest.raises(DecoderError, match=r"1 tensors differ, the first is text.projection.weight, expected .*99"):
        GroundedVLM.from_pretrained(tmp_path, adapter=wider, sam=SegmentAnything(tiny_sam()))


def test_a_decoder_without_a_refiner_is_refined_untrained(tiny_sam: TinySam, tmp_path: Path) -> None:
    GroundedVLM.untrained(FakeAdapter(), base_width=4).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["refiner"] is None
    vlm = GroundedVLM.from_pretrained(tmp_path, adapter=FakeAdapter(), sam=SegmentAnything(tiny_sam()))
    assert isinstance(vlm.decoder.refiner, UntrainedRefiner)
    with torch.no_grad():
        (logits,) = vlm.mask_logits([PROMPT])
        sam = vlm.decoder.refiner.sam
        expected = refine_untrained(sam, sam.encode(PROMPT.images[0]), logits.coarse, logits.box).at_image_size()
    assert logits.refined is not None
    assert torch.equal(logits.refined, expected)
    assert vlm.description.endswith("refined by Segment Anything as it is")


def test_without_a_refiner_the_masks_are_the_coarse_ones() -> None:
    vlm = GroundedVLM.untrained(FakeAdapter(), base_width=4)
    with torch.no_grad():
        (logits,) = vlm.mask_logits([PROMPT])
    assert logits.refined is None
    placed = place_map(logits.coarse, logits.box, (60, 90)) > 0
    for phrase, mask in zip(vlm.ground_all([PROMPT])[0].phrases, placed, strict=True):
        assert (phrase.mask == mask.numpy()).all()


def test_masks_of_heads_are_refined_untrained(tiny_sam: TinySam) -> None:
    adapter = FakeAdapter()
    scenes = Scenes(4, seed=6)
    none = calibrate(adapter, CalibrationSet.of_scenes(scenes, 6, labelled=True))
    profile = none.model_copy(update={"heads": none.others[:2]})  # the weights are random: no head follows phrases
    prompts = [scene.prompt for scene in scenes]
    plain = HeadGrounder(adapter, profile).ground_all(prompts)
    fine = HeadGrounder(adapter, profile, SegmentAnything(tiny_sam())).ground_all(prompts)
    pairs = [
        (a, b) for one, two in zip(plain, fine, strict=True) for a, b in zip(one.phrases, two.phrases, strict=True)
    ]
    assert pairs
    for before, after in pairs:
        assert (before.map == after.map).all()
        assert before.box is not None or after.box is None  # what the heads do not find stays so
    assert any((before.mask != after.mask).any() for before, after in pairs)


class Pointer(FakeAdapter):
    """A fake that answers with the same box to every question, or with none."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.answer = answer

    def generate(self, prompt: Prompt, max_new_tokens: int = 256, **_: object) -> Answer:
        assert prompt.images
        assert max_new_tokens > 0
        return Answer(self.answer)

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame:
        return CoordinateFrame(size[1], size[0])


def test_a_box_is_the_prompt_of_segment_anything(tiny_sam: TinySam) -> None:
    sam = SegmentAnything(tiny_sam())
    grounder = BoxGrounder(Pointer("[20, 10, 70, 50]"), sam)
    with torch.no_grad():
        image = sam.encode(PROMPT.images[0])
        decoded = sam.decode(image, boxes=torch.tensor([[20.0, 10.0, 70.0, 50.0]]))[:, :1]
        expected = (sam.at_image_size(decoded, image)[0, 0] > 0).numpy()
    for phrase in grounder.ground_all([PROMPT])[0].phrases:
        assert (phrase.mask == expected).all()
    assert grounder.description.endswith("masks by Segment Anything")


def test_without_a_box_segment_anything_finds_nothing(tiny_sam: TinySam) -> None:
    grounder = BoxGrounder(Pointer("There is none."), SegmentAnything(tiny_sam()))
    assert not any(phrase.mask.any() for phrase in grounder.ground_all([PROMPT])[0].phrases)
