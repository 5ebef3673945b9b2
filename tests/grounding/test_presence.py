"""What presence does to a grounding: masks, states, and what decoders without it say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vlm_adapters.answer import Answer
from vlm_adapters.decoder import MaskDecoder, PhraseFeatures, UNet, UNetConfig
from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.presence import PresenceHead
from vlm_adapters.geometry import CoordinateFrame
from vlm_adapters.grounding.boxes import BoxGrounder
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.output.exports import grounding_to_dict
from vlm_adapters.output.figures import grounding_figure
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

IMAGE = Image.new("RGB", (64, 48), "white")
TEXT, PHRASES = "a cat and a dog", ["a cat", "a dog"]
ADAPTER = FakeAdapter()


class Everywhere(nn.Module):
    """Logit 3 everywhere."""

    config = UNetConfig(channels=1)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.full((len(maps), *maps.shape[2:]), 3.0)


class Says(PresenceHead):
    """Gives the logits that it was given."""

    def __init__(self, *logits: float, threshold: float = 0.3) -> None:
        super().__init__(ADAPTER.info.channels, ADAPTER.info.hidden_size, ADAPTER.info.num_layers)
        self.logits, self.calibration = torch.tensor(logits), Calibration(threshold=threshold)

    def forward(self, features: PhraseFeatures, coarse: Tensor) -> Tensor:
        del features, coarse
        return self.logits


def vlm(*logits: float, threshold: float = 0.3) -> GroundedVLM:
    return GroundedVLM(ADAPTER, MaskDecoder(Everywhere(), None, None, Says(*logits, threshold=threshold)))


def test_an_absent_phrase_has_its_presence_and_no_mask() -> None:
    cat, dog = vlm(2.0, -2.0).ground(IMAGE, TEXT, PHRASES).phrases
    assert (cat.state, dog.state) == ("found", "absent")
    assert cat.presence == pytest.approx(0.8808, abs=1e-4)
    assert dog.presence == pytest.approx(0.1192, abs=1e-4)
    assert cat.mask.all()
    assert (dog.box, dog.score, bool(dog.mask.any())) == (None, 0.0, False)
    assert dog.map.max() == 1.0


def test_the_threshold_is_the_decoders_own() -> None:
    states = [found.state for found in vlm(-1.0, -2.0, threshold=0.2).ground(IMAGE, TEXT, PHRASES).phrases]
    assert states == ["found", "absent"]  # 0.27 and 0.12


def test_masks_of_absent_phrases_are_kept_on_request() -> None:
    grounder = vlm(2.0, -2.0)
    grounder.keeps_absent_masks = True
    _, dog = grounder.ground(IMAGE, TEXT, PHRASES).phrases
    assert dog.state == "absent"
    assert dog.mask.all()
    (masks,) = grounder.masks([Prompt.describe(IMAGE, TEXT, PHRASES)])
    assert masks["mask"].all()


def test_evaluated_masks_are_those_of_the_grounding() -> None:
    grounder = vlm(2.0, -2.0)
    prompt = Prompt.describe(IMAGE, TEXT, PHRASES)
    (masks,) = grounder.masks([prompt])
    expected = [found.mask for found in grounder.ground_all([prompt])[0].phrases]
    assert np.array_equal(masks["mask"], np.stack(expected))
    assert masks["mask"].any(axis=(1, 2)).tolist() == [True, False]


def test_an_empty_mask_of_a_present_phrase_is_unlocated() -> None:
    unet = UNet(UNetConfig(ADAPTER.info.channels, base_width=2, depth=2, canvas=8))
    nn.init.zeros_(unet.head.weight)
    nn.init.constant_(unet.head.bias, -5.0)
    cat, dog = GroundedVLM(ADAPTER, MaskDecoder(unet, None, None, Says(2.0, -2.0))).ground(IMAGE, TEXT, PHRASES).phrases
    assert (cat.state, dog.state) == ("unlocated", "absent")


def test_without_a_presence_head_presence_is_the_backbones_own_and_empties_nothing() -> None:
    grounder = GroundedVLM(ADAPTER, MaskDecoder(Everywhere()))
    prompt = Prompt.describe(IMAGE, TEXT, PHRASES)
    inputs = ADAPTER.preprocess([prompt])
    said = ADAPTER.model(**inputs.tensors).logits[0].log_softmax(-1)
    for found, tokens in zip(grounder.ground_all([prompt])[0].phrases, inputs.phrase_tokens[0], strict=True):
        ids = inputs.tensors["input_ids"][0, tokens[1:]]
        expected = said[tokens[1:] - 1].gather(1, ids[:, None]).min().exp()
        assert found.presence == pytest.approx(float(expected), rel=1e-4)
        assert found.state == "found"
        assert found.mask.all()


class Pointer(FakeAdapter):
    """Answers with a box for cats, and with none for anything else."""

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame:
        return CoordinateFrame(size[1], size[0])

    def generate(self, prompt: Prompt, max_new_tokens: int = 256, **_: object) -> Answer:
        del max_new_tokens
        return Answer("[1, 2, 30, 40]" if 'Locate "a cat"' in prompt.text else "[]")


def test_the_presence_of_a_box_is_whether_there_was_one() -> None:
    cat, dog = BoxGrounder(Pointer()).ground(IMAGE, TEXT, PHRASES).phrases
    assert (cat.presence, cat.state) == (1.0, "found")
    assert (dog.presence, dog.state, bool(dog.mask.any())) == (0.0, "absent", False)


def test_presence_and_state_are_exported_and_drawn() -> None:
    grounding = vlm(2.0, -2.0).ground(IMAGE, TEXT, PHRASES)
    cat, dog = grounding_to_dict(grounding)["phrases"]  # type: ignore[misc]
    assert (cat["state"], dog["state"]) == ("found", "absent")
    assert (cat["presence"], dog["presence"]) == tuple(found.presence for found in grounding.phrases)
    assert np.asarray(grounding_figure(grounding)).std() > 0


def test_a_saved_head_decides_again_after_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    channels = ADAPTER.info.channels
    unet = UNet(UNetConfig(channels, base_width=2, depth=2, canvas=8))
    for threshold, state in ((0.0, "found"), (1.0, "absent")):
        head = PresenceHead.of(ADAPTER.info, channels, 8, Calibration(threshold=threshold))
        nn.init.constant_(unet.head.bias, 50.0)
        GroundedVLM(ADAPTER, MaskDecoder(unet, None, None, head)).save_pretrained(tmp_path / state)
        loaded = GroundedVLM.from_pretrained(tmp_path / state, adapter=ADAPTER)
        assert [found.state for found in loaded.ground(IMAGE, TEXT, PHRASES).phrases] == [state] * 2
