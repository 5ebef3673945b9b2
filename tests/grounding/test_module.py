"""A grounded backbone as a torch module: it is the decoder alone, and the backbone follows it."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from vlm_adapters.decoder.losses import decoder_loss
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.prompt import Prompt
from vlm_adapters.testing.fakes import FakeAdapter

PROMPT = Prompt.describe(Image.new("RGB", (64, 48), "red"), "a red circle", ["a red circle"])


class ModuleAdapter(FakeAdapter, nn.Module):
    """A stranger's adapter that is a torch module."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        FakeAdapter.__init__(self)


def grounded() -> tuple[GroundedVLM, nn.Module]:
    adapter = ModuleAdapter()
    return GroundedVLM.untrained(adapter, base_width=2), adapter.model


def weight_of(model: nn.Module) -> torch.Tensor:
    return next(model.parameters())


def test_parameters_and_state_are_the_decoders_alone() -> None:
    vlm, _ = grounded()
    assert list(vlm.parameters()) == list(vlm.decoder.parameters())
    assert set(vlm.state_dict()) == {f"decoder.{name}" for name in vlm.decoder.state_dict()}


def test_the_mode_is_the_decoders_alone() -> None:
    vlm, model = grounded()
    vlm.train()
    assert vlm.decoder.unet.training
    assert not model.training
    model.train()
    vlm.eval()
    assert not vlm.decoder.unet.training
    assert model.training


def test_the_backbone_follows_to_a_device_and_keeps_its_precision() -> None:
    vlm, model = grounded()
    vlm.to(torch.bfloat16)
    assert {weight.dtype for weight in vlm.parameters()} == {torch.bfloat16}
    assert weight_of(model).dtype == torch.float32
    assert vlm.to("meta") is vlm
    assert {weight.device.type for weight in (*vlm.parameters(), weight_of(model))} == {"meta"}


@pytest.mark.parametrize(("name", "value"), [("hf_device_map", {"": 0}), ("hf_quantizer", object())])
def test_a_backbone_that_is_mapped_or_quantised_stays(name: str, value: object) -> None:
    vlm, model = grounded()
    setattr(model, name, value)
    vlm.to("meta")
    assert vlm.decoder.device.type == "meta"
    assert weight_of(model).device.type == "cpu"


def test_without_a_model_to_move_the_decoder_moves() -> None:
    adapter = FakeAdapter()
    del adapter.model
    vlm = GroundedVLM.untrained(adapter, base_width=2).to("meta")
    assert vlm.decoder.device.type == "meta"


def test_accelerate_prepares_the_decoder_alone() -> None:
    vlm, model = grounded()
    before = weight_of(model).clone()
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(vlm, torch.optim.AdamW(vlm.parameters(), lr=0.1))
    weights = [weight.clone() for weight in prepared.parameters()]
    found = prepared([PROMPT])
    accelerator.backward(decoder_loss(found, [torch.ones(1, 48, 64, dtype=torch.bool).numpy()]))
    optimizer.step()
    assert len(weights) == len(list(vlm.decoder.parameters()))
    assert any(not torch.equal(new, old) for new, old in zip(prepared.parameters(), weights, strict=True))
    assert torch.equal(weight_of(model), before)
    assert weight_of(model).grad is None
    assert not model.training
    assert isinstance(accelerator.unwrap_model(prepared).ground_all([PROMPT])[0].phrases[0].score, float)


def test_the_call_gives_the_logits() -> None:
    vlm = GroundedVLM.untrained(FakeAdapter(), base_width=2).eval()
    with torch.no_grad():
        assert torch.equal(vlm([PROMPT])[0].coarse, vlm.mask_logits([PROMPT])[0].coarse)
