"""A pass that ends after the last layer that is needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Llama4TextConfig, LlamaConfig

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.language_model import language_model_of, stop_after

LAYERS = 5
CONFIG = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4
)
IDS = torch.arange(12).view(2, 6)
POSITIONS = [torch.tensor([5, 0]), torch.tensor([3])]


def build() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG).eval()


def states(model: Any, layer: int, *, stop: bool) -> Tensor:
    cpu = torch.device("cpu")
    with (
        torch.no_grad(),
        capture_hidden_states(model, [layer], POSITIONS, cpu) as gathered,
        stop_after(model, layer if stop else LAYERS - 1),
    ):
        model.base_model(IDS)
    return torch.cat([gathered.at(b, [layer], 32) for b in range(2)], dim=1)


def test_what_was_gathered_is_that_of_a_full_pass() -> None:
    model = build()
    for layer in range(LAYERS):
        assert torch.equal(states(model, layer, stop=True), states(model, layer, stop=False)), layer


def test_no_layer_after_it_runs_and_no_head() -> None:
    model = build()
    run: list[int | str] = []

    def note(name: int | str) -> Any:
        return lambda *_: run.append(name)

    for index, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(note(index))
    model.model.norm.register_forward_pre_hook(note("norm"))
    model.lm_head.register_forward_pre_hook(note("head"))
    with torch.no_grad(), stop_after(model, 2):
        model(IDS)
    assert run == [0, 1, 2]


def test_the_model_is_as_before_also_after_an_error() -> None:
    model = build()
    with torch.no_grad():
        before = model(IDS).logits
        with stop_after(model, 1):
            model(IDS)
        with pytest.raises(IndexError), stop_after(model, 1):
            model(IDS + 50)
        assert torch.equal(model(IDS).logits, before)
    assert not any(module._forward_hooks for module in model.modules())  # noqa: SLF001 - torch has no public reader


def test_threads_stop_each_at_its_own_layer() -> None:
    model = build()
    expected = [states(model, layer, stop=False) for layer in range(LAYERS)]
    layers = [layer % LAYERS for layer in range(60)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda layer: states(model, layer, stop=True), layers))
    assert all(torch.equal(of_thread, expected[layer]) for layer, of_thread in zip(layers, found, strict=True))


def test_a_model_without_a_list_of_layers_is_an_error() -> None:
    model = build()
    model.model.layers = nn.ModuleList(list(model.model.layers)[:2])
    with pytest.raises(CaptureError, match="has no list of 5 layers"), stop_after(model, 1):
        model(IDS)


def test_a_layer_that_knows_its_index_is_no_attention_module() -> None:
    """Llama 4's layers have a `layer_idx`, as their attention has."""
    small: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "intermediate_size_mlp": 48, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    model = AutoModelForCausalLM.from_config(Llama4TextConfig(vocab_size=50, num_hidden_layers=2, **small, **heads))
    found = list(language_model_of(model).attention_modules())
    assert found == [(index, layer.self_attn) for index, layer in enumerate(model.model.layers)]
