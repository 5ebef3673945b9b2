"""Hidden states gathered by hooks, against what transformers itself collects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.hidden import capture_hidden_states

CONFIG = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    initializer_range=0.5,
)
CPU = torch.device("cpu")
POSITIONS = [torch.tensor([7, 0, 3]), torch.tensor([5])]


def build(kind: Any = AutoModelForCausalLM) -> Any:
    torch.manual_seed(0)
    return kind.from_config(CONFIG).eval()


def ids(seed: int = 0) -> Tensor:
    return torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(seed))


def test_states_are_those_of_the_layers_asked_for_in_their_order(subtests: pytest.Subtests) -> None:
    choices: list[list[int]] = [[0], [1], [2], [2, 0], []]
    kinds: list[Any] = [AutoModel, AutoModelForCausalLM]
    for layers, kind in product(choices, kinds):
        with subtests.test(layers=layers, kind=kind):
            model = build(kind)
            with torch.no_grad():
                with capture_hidden_states(model, layers, POSITIONS, CPU) as gathered:
                    model(ids())
                every = model(ids(), output_hidden_states=True).hidden_states
            for b, positions in enumerate(POSITIONS):
                found = gathered.at(b, layers, 32)
                assert found.shape == (len(layers), len(positions), 32)
                for layer, states in zip(layers, found, strict=True):
                    assert torch.equal(states, every[layer + 1][b][positions])


def test_no_hook_stays_behind_even_after_an_error() -> None:
    model = build()
    with pytest.raises(IndexError), torch.no_grad(), capture_hidden_states(model, [0, 2], POSITIONS, CPU):
        model(ids() + 50)
    assert not any(module._forward_hooks for module in model.modules())  # noqa: SLF001 - torch has no public reader


def test_nothing_but_the_positions_asked_for_is_kept() -> None:
    model = build()
    with torch.no_grad(), capture_hidden_states(model, [0, 1, 2], POSITIONS, CPU) as gathered:
        model(ids())
    kept = [states.untyped_storage().nbytes() for of_layer in gathered.states.values() for states in of_layer]
    assert sum(kept) == 3 * (3 + 1) * 32 * 4


def test_states_carry_gradient_where_the_pass_does() -> None:
    model = build()
    with capture_hidden_states(model, [1], POSITIONS, CPU) as gathered:
        model(ids())
    (found,) = torch.autograd.grad(gathered.at(1, [1], 32).square().sum(), model.model.layers[0].mlp.up_proj.weight)
    states = model(ids(), output_hidden_states=True).hidden_states[2][1, POSITIONS[1]]
    (expected,) = torch.autograd.grad(states.square().sum(), model.model.layers[0].mlp.up_proj.weight)
    torch.testing.assert_close(found, expected)


def test_threads_that_share_a_model_get_their_own_states() -> None:
    model = build()

    @torch.no_grad()
    def run(seed: int) -> Tensor:
        with capture_hidden_states(model, [0, 2], POSITIONS, CPU) as gathered:
            model(ids(seed))
        return gathered.at(0, [0, 2], 32)

    expected = [run(seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(40)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_layer_that_never_ran_is_an_error() -> None:
    model = build()
    with (
        pytest.raises(CaptureError, match=r"hidden states of layer 0 were not recorded.* Load the backbone again"),
        capture_hidden_states(model, [0, 1], POSITIONS, CPU),
    ):
        pass


def test_a_model_without_a_list_of_layers_is_an_error() -> None:
    model = build()
    del model.model.layers[0]
    with (
        pytest.raises(CaptureError, match="LlamaForCausalLM has no list of 3 layers"),
        capture_hidden_states(model, [0], POSITIONS, CPU),
    ):
        pytest.fail("entered")
