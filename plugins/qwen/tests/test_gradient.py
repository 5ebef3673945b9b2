"""Gradient from attention and from masks into the weights of a real class, where it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vlm_adapters import GridRequest, GroundedVLM, Prompt
from vlm_adapters.decoder import FeatureRequest
from vlm_adapters.errors import CaptureError
from vlm_adapters_qwen.adapter import QwenAdapter
from vlm_adapters_qwen.tiny import qwen2_5_vl

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112, 3), dtype=np.uint8))
PROMPT = Prompt.describe(IMAGE, "a red circle and a blue star", ["a red circle", "a blue star"])


@pytest.fixture
def adapter() -> QwenAdapter:
    """A backbone whose query projections require a gradient, and nothing else."""
    made = qwen2_5_vl()
    for name, parameter in made.model.named_parameters():
        parameter.requires_grad_("language_model" in name and "q_proj.weight" in name)
    return made


def checkpoint(module: torch.nn.Module) -> None:
    """Switch on gradient checkpointing; newer versions of transformers have another name for it."""
    getattr(module, "activation_checkpointing_enable", module.gradient_checkpointing_enable)()


def untrained(adapter: QwenAdapter, *, gradient: bool) -> GroundedVLM:
    torch.manual_seed(0)
    return GroundedVLM.untrained(adapter, FeatureRequest(GridRequest(gradient=gradient)), base_width=4).eval()


def test_the_loss_of_a_mask_reaches_the_backbone(adapter: QwenAdapter) -> None:
    untrained(adapter, gradient=True).mask_logits([PROMPT])[0].coarse.sum().backward()
    reached = {name for name, parameter in adapter.model.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, parameter in adapter.model.named_parameters() if parameter.requires_grad}


def test_grounding_needs_no_gradient_even_where_the_request_has_it(adapter: QwenAdapter) -> None:
    with_flag, without = (untrained(adapter, gradient=gradient).ground_all([PROMPT])[0] for gradient in (True, False))
    for one, other in zip(with_flag.phrases, without.phrases, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.map, other.map)


def test_gradient_through_a_checkpointed_language_model_is_refused(adapter: QwenAdapter) -> None:
    inputs = adapter.preprocess([PROMPT])
    checkpoint(adapter.model)
    adapter.model.train()
    with pytest.raises(CaptureError, match="Gradient checkpointing is on"):
        adapter.extract(inputs, GridRequest(gradient=True))
    assert not adapter.extract(inputs)[0][0].attention.requires_grad


def test_a_checkpointed_vision_tower_gives_the_same_gradient(adapter: QwenAdapter) -> None:
    vision = adapter.model.model.visual.requires_grad_()
    inputs = adapter.preprocess([PROMPT])

    def gradients() -> list[torch.Tensor]:
        shown = adapter.extract(inputs, GridRequest(gradient=True))[0][0].attention
        return list(torch.autograd.grad(shown.square().sum(), list(vision.blocks.parameters())))

    expected = gradients()
    checkpoint(vision)
    vision.train()
    for one, other in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(one, other)
