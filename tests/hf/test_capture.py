"""Attention rows against transformers' own eager attention, on tiny models of the real classes."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from inspect import signature
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedConfig,
    StaticCache,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.capture import RowRecorder, capture_rows
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.hf.rows import ScoreOptions

CACHE = next(name for name in ("cache", "past_key_values") if name in signature(LlamaForCausalLM.forward).parameters)
"""What a model's forward calls its cache: newer releases of transformers renamed it."""

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}


def grouped(kernel: str = "sdpa") -> Any:
    return _build(LlamaConfig(**SIZES, num_key_value_heads=2), kernel)


def multi_head(kernel: str = "sdpa") -> Any:
    return _build(LlamaConfig(**SIZES, num_key_value_heads=4), kernel)


def sliding(kernel: str = "sdpa") -> Any:
    return _build(MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=5), kernel)


def soft_capped(kernel: str = "eager") -> Any:
    config = Gemma2Config(
        **SIZES, num_key_value_heads=2, sliding_window=6, attn_logit_softcapping=3.0, query_pre_attn_scalar=4
    )
    return _build(config, kernel)


def with_sinks(kernel: str = "eager") -> Any:
    config = GptOssConfig(**SIZES, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, sliding_window=4)
    model = _build(config, kernel)
    for layer in model.model.layers:
        layer.self_attn.sinks.data.uniform_(-2, 2)
    return model


MODELS = [grouped, multi_head, sliding, soft_capped, with_sinks]


def _build(config: PreTrainedConfig, kernel: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()


def tokens(lengths: list[int], side: str = "right") -> tuple[Tensor, Tensor]:
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    generator = torch.Generator().manual_seed(1)
    for row, length in enumerate(lengths):
        place = slice(longest - length, None) if side == "left" else slice(0, length)
        ids[row, place] = torch.randint(1, 50, (length,), generator=generator)
        mask[row, place] = 1
    return ids, mask


def eager_attention(model: Any, ids: Tensor, mask: Tensor | None) -> list[Tensor]:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return list(model(ids, attention_mask=mask, output_attentions=True).attentions)


def plan(rows: list[int], columns: list[int], groups: list[int] | None = None) -> RowPlan:
    return RowPlan(torch.tensor(rows), torch.tensor(groups or [0] * len(rows)), torch.tensor(columns))


def test_rows_equal_eager_attention_in_padded_batches(subtests: pytest.Subtests) -> None:
    for side, build in product(["left", "right"], MODELS):
        with subtests.test(side=side, build=build):
            ids, mask = tokens([12, 9], side)
            starts = [0, 3 if side == "left" else 0]
            rows, columns = [3, 7, 8], [0, 1, 4, 5]
            plans = [plan([s + r for r in rows], [s + c for c in columns], [0, 1, 2]) for s in starts]
            model = build()
            with torch.no_grad(), capture_rows(model, plans, range(3)) as recorder:
                model(ids, attention_mask=mask)
            truth = eager_attention(build(), ids, mask)
            for layer in range(3):
                for b in range(2):
                    expected = truth[layer][b][:, plans[b].rows][:, :, plans[b].columns].transpose(0, 1)
                    torch.testing.assert_close(recorder.maps[layer][b], expected, atol=1e-5, rtol=0)


def test_logits_are_bit_identical_with_capture_on_and_off(subtests: pytest.Subtests) -> None:
    for build in MODELS:
        with subtests.test(build=build):
            ids, mask = tokens([12, 9], "left")
            model = build()
            with torch.no_grad():
                off = model(ids, attention_mask=mask).logits
                with capture_rows(model, [plan([8], [4]), plan([8], [4])], range(3)):
                    on = model(ids, attention_mask=mask).logits
                after = model(ids, attention_mask=mask).logits
            assert torch.equal(on, off)
            assert torch.equal(after, off)


def test_cached_steps_give_the_rows_of_one_teacher_forced_pass(subtests: pytest.Subtests) -> None:
    for build in MODELS:
        with subtests.test(build=build):
            ids, mask = tokens([12, 9], "left")
            plans = [plan([3, 7, 8, 11], [0, 1, 4, 9], [0, 0, 1, 1]), plan([5, 7, 9, 10], [3, 4, 6, 8], [0, 0, 1, 1])]
            model = build()
            with torch.no_grad():
                with capture_rows(model, plans, range(3)) as whole:
                    model(ids, attention_mask=mask)
                with capture_rows(model, plans, range(3)) as stepwise:
                    cache = DynamicCache(config=model.config)
                    model(ids[:, :6], attention_mask=mask[:, :6], **{CACHE: cache})
                    for end in range(7, 13):
                        model(ids[:, end - 1 : end], attention_mask=mask[:, :end], **{CACHE: cache})
            for layer in range(3):
                for b in range(2):
                    torch.testing.assert_close(stepwise.maps[layer][b], whole.maps[layer][b], atol=1e-5, rtol=0)


def test_generation_gives_the_rows_of_one_teacher_forced_pass() -> None:
    ids, mask = tokens([8])
    model = grouped()
    plans = [plan([8, 9, 10], [0, 2, 4], [0, 1, 2])]
    with capture_rows(model, plans, range(3)) as generating:
        full = model.generate(ids, attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    with torch.no_grad(), capture_rows(model, plans, range(3)) as forced:
        model(full)
    for layer in range(3):
        torch.testing.assert_close(generating.maps[layer][0], forced.maps[layer][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("reduce", "oracle"), [("mean", lambda rows: rows.mean(0)), ("max", lambda rows: rows.amax(0))]
)
def test_rows_of_a_group_are_reduced_as_asked(reduce: Any, oracle: Any) -> None:
    ids, mask = tokens([10])
    model = grouped()
    with torch.no_grad(), capture_rows(model, [plan([4, 6, 9, 5], [0, 3], [0, 0, 0, 1])], [1], reduce) as recorder:
        model(ids)
    rows = eager_attention(grouped(), ids, mask)[1][0].transpose(0, 1)
    torch.testing.assert_close(recorder.maps[1][0][0], oracle(rows[[4, 6, 9]])[:, [0, 3]], atol=1e-5, rtol=0)
    torch.testing.assert_close(recorder.maps[1][0][1], rows[5][:, [0, 3]], atol=1e-5, rtol=0)


def test_reduction_none_keeps_every_row_in_the_order_asked() -> None:
    ids, mask = tokens([10])
    model = grouped()
    with torch.no_grad(), capture_rows(model, [plan([9, 4], [0, 3])], [2], "none") as recorder:
        model(ids)
    rows = eager_attention(grouped(), ids, mask)[2][0].transpose(0, 1)
    torch.testing.assert_close(recorder.maps[2][0], rows[[9, 4]][..., [0, 3]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("reduce", ["mean", "max", "none"])
@torch.no_grad()
def test_rows_in_blocks_are_those_of_one_piece(build: Any, reduce: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    ids, mask = tokens([12, 9])
    plans = [plan([1, 2, 4, 5, 6, 9, 11], [0, 1, 3], [0, 0, 0, 1, 1, 1, 1]), plan([8, 3], [2, 7])]
    maps = {}
    for most in (2**25, 4 * 12 * 2, 1):  # all rows at once, two, one
        monkeypatch.setattr("vlm_adapters.hf.capture.MAX_SCORES", most)
        with capture_rows(model, plans, range(3), reduce) as recorder:
            model(input_ids=ids, attention_mask=mask)
        maps[most] = recorder.maps
    for blocks in maps.values():
        for layer in range(3):
            for found, expected in zip(blocks[layer], maps[2**25][layer], strict=True):
                torch.testing.assert_close(found, expected, atol=3e-6, rtol=1e-6)


@pytest.mark.parametrize("heads", [[2], [3, 1], [0, 1, 3], [2, 2, 0], []], ids=str)
def test_chosen_heads_are_those_of_eager_attention_in_the_order_asked(
    heads: list[int], subtests: pytest.Subtests
) -> None:
    ids, mask = tokens([12, 9])
    plans = [plan([3, 7, 8], [0, 1, 4], [0, 0, 1]), plan([5, 6], [0, 2])]
    for build in MODELS:
        with subtests.test(build=build):
            model = build()
            with torch.no_grad(), capture_rows(model, plans, range(3), heads=heads) as recorder:
                model(ids, attention_mask=mask)
            truth = eager_attention(build(), ids, mask)
            for layer in range(3):
                for b, one in enumerate(plans):
                    rows = truth[layer][b][heads][:, one.rows][:, :, one.columns].transpose(0, 1)
                    expected = reduced(rows, one.groups, "mean")
                    torch.testing.assert_close(recorder.maps[layer][b], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_chosen_heads_see_what_a_mask_lets_each_of_them_see() -> None:
    ids, _ = tokens([10])
    distance = torch.arange(10)[:, None] - torch.arange(10)
    seen = torch.stack([(distance >= 0) & (distance < window) for window in (10, 2, 5, 3)])[None]
    model = grouped()
    with capture_rows(model, [plan([6, 9], [0, 5, 8], [0, 1])], [0], heads=[3, 1]) as recorder:
        model(ids, attention_mask=seen)
    with capture_rows(model, [plan([6, 9], [0, 5, 8], [0, 1])], [0]) as all_heads:
        model(ids, attention_mask=seen)
    assert torch.equal(recorder.maps[0][0] > 0, seen[0, [3, 1]][:, [6, 9]][:, :, [0, 5, 8]].transpose(0, 1))
    torch.testing.assert_close(recorder.maps[0][0], all_heads.maps[0][0][:, [3, 1]], atol=1e-6, rtol=0)


@torch.no_grad()
def test_scores_of_other_heads_are_not_computed() -> None:
    length, sizes = 600, []
    options = ScoreOptions("eager", scaling=1.0, causal=True, sliding_window=None, softcap=None, sinks=None)
    for heads in ([1], None):
        recorder = RowRecorder([plan([*range(500, 600)], [0, 1])], [0], heads=heads)
        query = key = torch.ones(1, 4, length, 8)
        with LargestTensor() as largest:
            recorder.record(0, query, key, None, options)
        sizes.append(largest.elements)
    assert sizes == [100 * length, 4 * 100 * length]


@torch.no_grad()
def test_the_maps_of_a_pass_are_written_where_they_stay() -> None:
    ids, mask = tokens([12, 9])
    model = grouped()
    with capture_rows(model, [plan([8], [4, 5]), plan([8], [4])], [2, 0]) as recorder:
        model(ids, attention_mask=mask)
    for sequence, columns in ((0, 2), (1, 1)):
        maps = recorder.maps_of(sequence)
        assert maps.shape == (1, 2, 4, columns)
        assert maps.untyped_storage().nbytes() == maps.numel() * 4
        for place, layer in enumerate([2, 0]):
            assert maps[:, place].data_ptr() == recorder.maps[layer][sequence].data_ptr()


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


@torch.no_grad()
def test_a_long_phrase_is_never_scored_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, length = grouped(), 600
    monkeypatch.setattr("vlm_adapters.hf.capture.MAX_SCORES", 2**17)
    ids = torch.randint(1, 50, (1, length), generator=torch.Generator().manual_seed(0))
    with LargestTensor() as largest, capture_rows(model, [plan([*range(length)], [0, 1])], range(3)):
        model(input_ids=ids)
    assert largest.elements < 3 * 2**17  # the model's own are 600 x 600; the scores of all rows 4 x 600 x 600


def test_only_the_layers_asked_for_are_recorded() -> None:
    ids, _ = tokens([10])
    model = grouped()
    with torch.no_grad(), capture_rows(model, [plan([4], [0])], [2]) as recorder:
        model(ids)
    assert list(recorder.maps) == [2]


def test_a_model_loaded_in_eager_mode_is_captured_too() -> None:
    ids, mask = tokens([10])
    model = grouped("eager")
    with torch.no_grad(), capture_rows(model, [plan([7], [0, 3])], [0]) as recorder:
        model(ids, attention_mask=mask)
    expected = eager_attention(grouped(), ids, mask)[0][0][:, 7, [0, 3]]
    torch.testing.assert_close(recorder.maps[0][0][0], expected, atol=1e-5, rtol=0)


def test_an_unknown_score_bias_is_an_error_and_never_a_wrong_map(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, _ = tokens([6])
    model = grouped()
    attention = model.model.layers[0].self_attn
    forward = type(attention).forward

    def biased(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs, position_bias=torch.zeros(1, 4, 6, 6))

    monkeypatch.setattr(type(attention), "forward", biased)
    with (
        pytest.raises(CaptureError, match="passes position_bias to its attention"),
        torch.no_grad(),
        capture_rows(model, [plan([4], [0])], [0]),
    ):
        model(ids)


def test_a_static_cache_is_an_error_that_says_what_to_do() -> None:
    ids, _ = tokens([6])
    model = grouped()
    cache = StaticCache(config=model.config, max_cache_len=20)
    with (
        pytest.raises(CaptureError, match="Begin capturing with an empty dynamic cache"),
        torch.no_grad(),
        capture_rows(model, [plan([4], [0])], [0]),
    ):
        model(ids, **{CACHE: cache})


def test_a_cache_that_was_rolled_back_is_an_error() -> None:
    ids, _ = tokens([16])
    model = grouped()
    cache = DynamicCache(config=model.config)

    def roll_back() -> None:
        with torch.no_grad(), capture_rows(model, [plan([12], [0])], [0]):
            model(ids[:, :10], **{CACHE: cache})
            cache.crop(-5)
            model(ids[:, 10:], **{CACHE: cache})

    with pytest.raises(CaptureError, match="do not roll it back"):
        roll_back()


def test_rows_of_another_model_run_in_the_block_are_not_taken() -> None:
    ids, mask = tokens([10])
    model, other = grouped(), multi_head()
    wanted = [plan([7], [0, 3])]
    with torch.no_grad(), capture_rows(other, wanted, [0]):
        other(ids)
    with torch.no_grad(), capture_rows(model, wanted, [0]) as recorder:
        other(ids)
        model(ids)
        other(ids)
    expected = eager_attention(grouped(), ids, mask)[0][0][:, 7, [0, 3]]
    torch.testing.assert_close(recorder.maps[0][0][0], expected, atol=1e-5, rtol=0)


def test_rows_are_float32_under_autocast() -> None:
    ids, _ = tokens([10])
    model = grouped()
    captured: dict[str, Tensor] = {}

    def watch(_: Any, __: Any, kwargs: Any, ___: Any) -> None:
        captured["hidden"] = kwargs["hidden_states"].detach()

    model.model.layers[0].self_attn.register_forward_hook(watch, with_kwargs=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), capture_rows(model, [plan([7], [0, 3])], [0]) as found:
        model(ids)
    attention = model.model.layers[0].self_attn
    rotary = model.model.rotary_emb(captured["hidden"], torch.arange(10)[None])
    with torch.autocast("cpu", torch.bfloat16):
        query, key = attention.q_proj(captured["hidden"]), attention.k_proj(captured["hidden"])
    query, key = (states.view(1, 10, -1, 8).transpose(1, 2) for states in (query, key))
    query, key = apply_rotary_pos_emb(query, key, *rotary)
    scores = query[0, :, 7].float()[:, None] @ key[0].float().repeat_interleave(2, 0)[:, :8].transpose(1, 2) * 8**-0.5
    assert found.maps[0][0].dtype == torch.float32
    torch.testing.assert_close(found.maps[0][0][0], scores.softmax(-1)[:, 0, [0, 3]], atol=1e-6, rtol=0)


def test_rows_that_never_came_are_an_error() -> None:
    ids, _ = tokens([6])
    model = grouped()
    with (
        pytest.raises(CaptureError, match="Layer 0 recorded 1 of 2 rows"),
        torch.no_grad(),
        capture_rows(model, [plan([4, 6], [0])], [0]),
    ):
        model(ids)


def test_an_expanded_batch_is_an_error() -> None:
    ids, _ = tokens([6, 6])
    model = grouped()
    with (
        pytest.raises(CaptureError, match="planned for 1 sequences, the model ran 2"),
        torch.no_grad(),
        capture_rows(model, [plan([4], [0])], [0]),
    ):
        model(ids)


@pytest.mark.parametrize(("reduce", "entries"), [("mean", 2), ("max", 2), ("none", 3)])
def test_on_the_meta_device_rows_have_their_sizes(reduce: Any, entries: int) -> None:
    model = grouped().to("meta")
    wanted = RowPlan(torch.tensor([3, 4, 5]), torch.tensor([0, 0, 1]), torch.tensor([0, 1]))
    embeddings = torch.empty(1, 6, SIZES["hidden_size"], device="meta")
    with torch.no_grad(), capture_rows(model, [wanted], [1], reduce) as recorder:
        model.base_model(inputs_embeds=embeddings, **{CACHE: DynamicCache()})
    (maps,) = recorder.maps[1]
    assert (maps.shape, maps.device.type) == ((entries, 4, 2), "meta")


def test_no_tensor_of_capture_grows_with_the_square_of_the_length() -> None:
    length, rows = 700, 2
    ids, _ = tokens([length])
    model = multi_head()
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with torch.no_grad(), Watch(), capture_rows(model, [plan([600, 650], [1, 2, 3])], range(3)):
        model.base_model(ids, use_cache=False)
    assert 0 < largest <= max(4 * rows * length, length * SIZES["intermediate_size"])


def operations(layers: int, lengths: list[int], *, captured: bool) -> Counter[str]:
    """The operations of a pass that change or copy values, with rows of all layers or with none."""
    config = LlamaConfig(**SIZES | {"num_hidden_layers": layers}, num_key_value_heads=2)
    model = _build(config, "sdpa")
    ids, mask = tokens(lengths)
    plans = [plan([4, 6, 9], [0, 3], [0, 0, 1]) for _ in lengths]
    counts: Counter[str] = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            counts[func.overloadpacket.__name__] += not func.is_view
            return func(*args, **(kwargs or {}))

    rows = capture_rows(model, plans, range(layers)) if captured else nullcontext()
    with torch.no_grad(), Count(), rows:
        model.base_model(ids, attention_mask=mask, use_cache=False)
    return counts


@pytest.mark.parametrize("lengths", [[12], [12, 10, 11]], ids=["one sequence", "a padded batch"])
def test_a_layer_does_no_more_than_the_arithmetic_of_its_rows(lengths: list[int]) -> None:
    extra = [operations(n, lengths, captured=True) - operations(n, lengths, captured=False) for n in (2, 3)]
    of_a_layer = extra[1] - extra[0]
    assert (of_a_layer["baddbmm"], of_a_layer["bmm"]) == (1, 1)  # all scores, and the means over phrases
    assert of_a_layer["add_"] == len(lengths)  # the maps of every sequence, into their place
    allowed = {"baddbmm", "bmm", "index", "masked_fill_", "_softmax", "index_select", "gather", "clone", "sum"}
    assert set(of_a_layer) <= allowed | {"_unsafe_view", "add_", "new_empty"}
    assert all(of_a_layer[name] <= 2 for name in allowed - {"clone"})


def trainable(build: Any) -> tuple[Any, list[Tensor]]:
    """A model of which nothing but the projections to queries and keys, and sinks, requires a gradient; and those."""
    model = build().requires_grad_(requires_grad=False)
    chosen = [
        parameter.requires_grad_()
        for name, parameter in model.named_parameters()
        if any(part in name for part in ("q_proj", "k_proj", "sinks"))
    ]
    return model, chosen


def reduced(rows: Tensor, groups: Tensor, reduce: str) -> Tensor:
    """Rows `(R, n, C)` to one per group, one after another."""
    if reduce == "none":
        return rows
    parts = [rows[groups == group] for group in range(int(groups.max()) + 1)]
    return torch.stack([part.mean(0) if reduce == "mean" else part.amax(0) for part in parts])


def test_the_gradient_of_rows_is_that_of_eager_attention(subtests: pytest.Subtests) -> None:
    reduces: list[Any] = ["mean", "max", "none"]
    for reduce, build in product(reduces, MODELS):
        with subtests.test(reduce=reduce, build=build):
            ids, mask = tokens([12, 9], "left")
            columns = [[0, 1, 4, 5], [3, 4, 6]]
            plans = [plan([5, 6, 9, 11], columns[0], [0, 0, 1, 1]), plan([7, 8, 11], columns[1], [0, 0, 1])]
            model, chosen = trainable(build)
            with capture_rows(model, plans, range(3), reduce) as recorder:
                model(ids, attention_mask=mask)
            found = [recorder.maps[layer][b] for layer in range(3) for b in range(2)]

            eager, of_eager = trainable(build)
            eager.set_attn_implementation("eager")
            truth = eager(ids, attention_mask=mask, output_attentions=True).attentions
            expected = [
                reduced(truth[layer][b][:, one.rows][:, :, one.columns].transpose(0, 1), one.groups, reduce)
                for layer in range(3)
                for b, one in enumerate(plans)
            ]
            generator = torch.Generator().manual_seed(0)
            weights = [torch.randn(one.shape, generator=generator) for one in expected]
            scalars = [sum((one * w).sum() for one, w in zip(maps, weights, strict=True)) for maps in (found, expected)]
            got = torch.autograd.grad(scalars[0], chosen)
            wanted = torch.autograd.grad(scalars[1], of_eager)
            largest = max(gradient.abs().max().item() for gradient in wanted)
            assert largest > 0.01
            for one, other in zip(got, wanted, strict=True):
                torch.testing.assert_close(one, other, atol=1e-5 * largest, rtol=0)


def test_rows_carry_gradient_only_where_the_pass_does() -> None:
    ids, _ = tokens([10])
    model, _ = trainable(grouped)
    wanted = [plan([7], [0, 3])]
    with torch.no_grad(), capture_rows(model, wanted, [0]) as disabled:
        model(ids)
    with capture_rows(model.requires_grad_(requires_grad=False), wanted, [0]) as frozen:
        model(ids)
    assert not disabled.maps[0][0].requires_grad
    assert not frozen.maps[0][0].requires_grad


def test_logits_and_their_gradient_are_bit_identical_with_capture_on_and_off() -> None:
    ids, mask = tokens([12, 9], "left")
    model, chosen = trainable(grouped)
    off = model(ids, attention_mask=mask).logits
    with capture_rows(model, [plan([8], [4]), plan([8], [4])], range(3)):
        on = model(ids, attention_mask=mask).logits
    assert torch.equal(on, off)
    pairs = zip(*(torch.autograd.grad(logits.square().mean(), chosen) for logits in (on, off)), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_rows_in_training_mode_are_the_weights_before_dropout() -> None:
    ids, _ = tokens([10])
    model, chosen = trainable(grouped)
    for layer in model.train().model.layers:
        layer.self_attn.attention_dropout = 0.5
    with capture_rows(model, [plan([7], [0, 3])], [0]) as recorder:
        model(ids)
    expected = eager_attention(grouped(), ids, None)[0][0][:, 7, [0, 3]]
    torch.testing.assert_close(recorder.maps[0][0][0], expected, atol=1e-5, rtol=0)
    assert torch.autograd.grad(recorder.maps[0][0].sum(), chosen, allow_unused=True)[0].abs().max() > 0


def test_gradient_through_checkpointed_layers_is_refused() -> None:
    ids, _ = tokens([10])
    model, _ = trainable(grouped)
    # Newer versions of transformers have another name for it.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    wanted = [plan([7], [0, 3])]
    with (
        pytest.raises(CaptureError, match=r"Gradient checkpointing is on: .* Turn it off, put the model in eval mode"),
        capture_rows(model.train(), wanted, [0]),
    ):
        model(ids)
    with torch.no_grad(), capture_rows(model, wanted, [0]) as without_gradient:
        model(ids, use_cache=False)
    with capture_rows(model.eval(), wanted, [0]) as in_eval_mode:  # where transformers does not checkpoint
        model(ids)
    assert not without_gradient.maps[0][0].requires_grad
    assert in_eval_mode.maps[0][0].requires_grad
