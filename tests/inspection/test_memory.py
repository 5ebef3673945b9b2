"""Memory of a forward pass against arithmetic by hand, on language models small enough for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import Gemma4TextConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from vlm_adapters.inspection.memory import PassMemory, pass_memory, peak_bytes

S, D, MLP, HEADS, KEY_HEADS, LAYERS = 500, 64, 96, 4, 2, 3
SIZE = D // HEADS
BF16, FLOAT = 2, 4


def config(**fields: Any) -> PreTrainedConfig:
    sizes = {
        "vocab_size": 100,
        "hidden_size": D,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
    }
    return LlamaConfig(**{**sizes, **fields})


def memory(tokens: int = S, rows: int = 8, columns: int = 100, **fields: Any) -> PassMemory:
    return pass_memory(config(**fields), tokens, rows, columns, range(LAYERS))


def standing(length: int = S) -> int:
    """Positions, their cosines and sines, and the embeddings: alive during the whole pass."""
    return length * (8 + 2 * SIZE * BF16 + D * BF16)


def test_a_plain_pass_is_at_its_peak_in_the_mlp() -> None:
    inputs = 3 * S * D * BF16  # the layer's input, the residual beside the MLP, and what is normed for it
    products = 3 * S * MLP * BF16  # gate after its activation, up, and their product
    assert memory().plain == standing() + inputs + products


def test_an_eager_pass_is_at_its_peak_in_the_last_softmax() -> None:
    heads = S * SIZE * (HEADS + 2 * KEY_HEADS + 2 * HEADS) * BF16  # queries, keys, values; both repeated for all heads
    inputs = 2 * S * D * BF16  # the layer's input, and what is normed for its attention
    matrix = HEADS * S * S
    mask = S * S * BF16
    kept = (LAYERS - 1) * matrix * BF16
    softmax = matrix * (BF16 + FLOAT + FLOAT)  # scores, the same in float32, and their softmax
    assert memory().eager == standing() + inputs + heads + mask + kept + softmax


def test_recorded_maps_are_what_rows_keep() -> None:
    layers = 40  # so that what is kept outweighs what one layer needs for a moment
    many = pass_memory(config(num_hidden_layers=layers), S, 8, 400, range(layers))
    few = pass_memory(config(num_hidden_layers=layers), S, 8, 200, range(layers))
    kept = layers * 8 * HEADS * FLOAT
    assert many.rows - few.rows == pytest.approx(kept * 200, rel=0.05)
    assert many.plain == few.plain


def test_rows_grow_with_the_rows_and_the_length_and_never_with_its_square() -> None:
    small, long, many = memory(2000, rows=64), memory(4000, rows=64), memory(2000, rows=128)
    extra = small.rows - small.plain
    assert extra < 3 * 64 * HEADS * 2000 * FLOAT  # scores, their softmax, and less than that for all else
    assert long.rows - long.plain == pytest.approx(2 * extra, rel=0.1)
    assert many.rows - many.plain == pytest.approx(2 * extra, rel=0.1)
    assert long.eager > 3.8 * small.eager


def test_phrase_states_of_all_layers_add_less_than_two_percent_to_a_plain_pass() -> None:
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_hidden_layers": 28}
    found = pass_memory(config(**sizes), 4000, 12, 3000, [])
    assert 0 < found.states - found.plain < 0.02 * found.plain
    assert found.states - found.rows <= 28 * 12 * 896 * BF16 + 12 * 8


def test_a_plain_pass_grows_with_the_length() -> None:
    assert memory(4000).plain == 2 * memory(2000).plain


def test_other_families_count_alike() -> None:
    shared = config().to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    other = Qwen2Config(num_key_value_heads=KEY_HEADS, **{name: shared[name] for name in names})
    assert pass_memory(other, S, 8, 100, range(LAYERS)) == memory()


def test_embeddings_that_layers_add_are_alive_during_the_pass() -> None:
    sizes = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    layers = {"head_dim": SIZE, "global_head_dim": SIZE, "num_kv_shared_layers": 0, "layer_types": None}
    fields = {**sizes, **layers, "vocab_size": 100, "vocab_size_per_layer_input": 100, "intermediate_size": MLP}
    none, some = (
        pass_memory(Gemma4TextConfig(**fields, hidden_size_per_layer_input=width), S, 8, 100, range(LAYERS)).plain
        for width in (0, 32)
    )
    assert some - none >= S * LAYERS * 32 * BF16


def test_the_config_stays_as_it_was() -> None:
    given = config()
    before = given.to_dict(), given._attn_implementation  # noqa: SLF001 - transformers has no public reader
    pass_memory(given, 32, 4, 8, range(LAYERS))
    assert (given.to_dict(), given._attn_implementation) == before  # noqa: SLF001


def test_weights_and_views_of_them_are_not_counted() -> None:
    with torch.device("meta"):
        layer = nn.Linear(1000, 10, bias=False)
        made = torch.empty(5, 1000)
    assert peak_bytes(layer, layer.weight.t) == 0
    assert peak_bytes(layer, lambda: layer(made)) == 5 * 10 * FLOAT


def test_what_is_freed_counts_no_more() -> None:
    def run() -> None:
        for _ in range(3):
            torch.empty(1000, device="meta") + 1

    assert peak_bytes(nn.Identity(), run) == 2 * 1000 * FLOAT


def test_a_model_that_asks_for_values_does_not_give_a_wrong_figure() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        peak_bytes(nn.Identity(), lambda: torch.ones(3, device="meta").sum().item())
