"""The words of a phrase as prompt tokens."""

from __future__ import annotations

import pytest
import torch

from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.errors import DecoderError


def test_tokens_are_the_projection_of_the_mean_layer_at_first() -> None:
    text = TextPrompt(hidden_size=8, layers=3, width=5)
    hidden = torch.randn(3, 4, 8)
    torch.testing.assert_close(text(hidden), text.projection(hidden.mean(0)))


def test_layers_are_weighted_by_a_softmax() -> None:
    text = TextPrompt(hidden_size=2, layers=2, width=2)
    with torch.no_grad():
        text.layer_weights.copy_(torch.tensor([0.0, 3.0]).log1p())  # 1 to 4
        text.projection.weight.copy_(torch.eye(2))
        text.projection.bias.zero_()
    hidden = torch.tensor([[[10.0, 0.0]], [[0.0, 5.0]]])
    torch.testing.assert_close(text(hidden), torch.tensor([[2.0, 4.0]]))


def test_every_token_is_its_own_prompt() -> None:
    text = TextPrompt(hidden_size=8, layers=3, width=5)
    hidden = torch.randn(3, 4, 8)
    torch.testing.assert_close(text(hidden)[2:3], text(hidden[:, 2:3]))


def test_it_has_the_weights_of_the_published_one() -> None:
    sizes = {name: tuple(weight.shape) for name, weight in TextPrompt(4096, 32).named_parameters()}
    assert sizes == {"layer_weights": (32,), "projection.weight": (256, 4096), "projection.bias": (256,)}


def test_everything_in_it_is_trained() -> None:
    text = TextPrompt(hidden_size=8, layers=3, width=5)
    text(torch.randn(3, 4, 8)).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in text.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_states_of_any_type_are_mixed_in_float32(dtype: torch.dtype) -> None:
    text = TextPrompt(hidden_size=8, layers=3, width=5)
    hidden = torch.randn(3, 4, 8, dtype=torch.bfloat16)
    found = text.to(dtype)(hidden)
    assert found.dtype == dtype
    torch.testing.assert_close(found, text.projection(hidden.float().mean(0).to(dtype)))


@pytest.mark.parametrize("shape", [(2, 4, 8), (3, 4, 7), (4, 8)])
def test_hidden_states_of_another_backbone_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(DecoderError, match=r"reads 3 layers of width 8.*phrase_hidden_layers=None"):
        TextPrompt(hidden_size=8, layers=3)(torch.zeros(shape))


def test_a_size_of_nothing_is_an_error() -> None:
    with pytest.raises(DecoderError, match="layers=0"):
        TextPrompt(hidden_size=8, layers=0)
