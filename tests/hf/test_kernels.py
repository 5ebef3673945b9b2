"""Rows beside flash and flex kernels: stand-ins with the real signature for flash, the real thing for flex.

The stand-ins are written from flash-attention's own documentation: causality is aligned to the bottom right, windows
have inclusive bounds, padding is dropped before the kernel counts. The softmax weights that they use are the oracle.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import (
    CONFIG_MAPPING,
    AttentionInterface,
    AutoModelForCausalLM,
    Gemma2Config,
    Llama4VisionConfig,
    Llama4VisionModel,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    modeling_flash_attention_utils,
)
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vlm_adapters.errors import CaptureError
from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.kernels import listen
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.hf.rows import ScoreOptions, mask_of_rows, mask_scores, row_scores

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
GROUPED = LlamaConfig(**SIZES)
SLIDING = MistralConfig(**SIZES, sliding_window=4)
CAPPED = Gemma2Config(**SIZES, sliding_window=5, attn_logit_softcapping=3.0, query_pre_attn_scalar=4)
CONFIGS = [pytest.param(config, id=config.model_type) for config in (GROUPED, SLIDING, CAPPED)]
LEFT = torch.tensor([[1] * 12, [0] * 3 + [1] * 9])
MASKS = {
    "no mask": None,
    "all ones": torch.ones(2, 12, dtype=torch.long),
    "padded on the left": LEFT,
    "padded on the right": LEFT.flip(1),
    "with a hole": torch.tensor([[1] * 12, [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]]),
}


@dataclass
class FlashStandIn:
    """Dense attention behind the signatures of flash-attention 2 and 3; keeps the weights of every call."""

    weights: list[list[Tensor]] = field(default_factory=list)

    def flash_attn_func(  # noqa: PLR0913, PLR0917 - the real signature
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,  # noqa: FBT001, FBT002
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,  # noqa: FBT001, FBT002, ARG002
        return_attn_probs: bool = False,  # noqa: FBT001, FBT002, ARG002
    ) -> Tensor:
        assert not dropout_p
        assert alibi_slopes is None
        rule = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size, "softcap": softcap}
        pairs = [dense(*one, **rule) for one in zip(q, k, v, strict=True)]
        self.weights.append([weights for weights, _ in pairs])
        return torch.stack([output for _, output in pairs])

    def flash_attn_varlen_func(  # noqa: PLR0913, PLR0917 - the real signature
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,  # noqa: ARG002
        max_seqlen_k: int,  # noqa: ARG002
        dropout_p: float = 0.0,  # noqa: ARG002
        softmax_scale: float | None = None,
        causal: bool = False,  # noqa: FBT001, FBT002
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,  # noqa: FBT001, FBT002, ARG002
    ) -> Tensor:
        rule = {"softmax_scale": softmax_scale, "causal": causal, "window_size": window_size, "softcap": softcap}
        cuts = [torch.diff(ends).tolist() for ends in (cu_seqlens_q, cu_seqlens_k, cu_seqlens_k)]
        parts = zip(*(states.split(cut) for states, cut in zip((q, k, v), cuts, strict=True)), strict=True)
        pairs = [dense(*part, **rule) for part in parts]
        self.weights.append([weights for weights, _ in pairs])
        return torch.cat([output for _, output in pairs])


def dense(q: Tensor, k: Tensor, v: Tensor, **rule: Any) -> tuple[Tensor, Tensor]:
    """Weights `(n, Sq, Sk)` and output `(Sq, n, d)` of one sequence; query `(Sq, n, d)`, keys `(Sk, n_kv, d)`."""
    heads, behind = q.shape[1] // k.shape[1], len(k) - len(q)
    scores = torch.einsum("qnd,knd->nqk", q.double(), k.double().repeat_interleave(heads, 1)) * rule["softmax_scale"]
    if rule["softcap"]:
        scores = rule["softcap"] * (scores / rule["softcap"]).tanh()
    left, right = rule["window_size"]
    for row in range(len(q)):
        for key in range(len(k)):
            place = row + behind
            beyond = (left >= 0 and key < place - left) or (right >= 0 and key > place + right)
            if beyond or (rule["causal"] and key > place):
                scores[:, row, key] = -torch.inf
    weights = scores.softmax(-1)
    output = torch.einsum("nqk,knd->qnd", weights, v.double().repeat_interleave(heads, 1))
    return weights.float(), output.to(q.dtype)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlashStandIn]:
    """Stand-ins where transformers imports flash-attention 2 and 3 from."""
    stand_in = FlashStandIn()
    functions = {
        "flash_attn_func": stand_in.flash_attn_func,
        "flash_attn_varlen_func": stand_in.flash_attn_varlen_func,
        "flash_attn_with_kvcache": None,
        "pad_input": modeling_flash_attention_utils._pad_input,  # noqa: SLF001 - what transformers itself falls back to
        "unpad_input": modeling_flash_attention_utils._unpad_input,  # noqa: SLF001
    }
    for name in ("flash_attn", "flash_attn.bert_padding", "flash_attn_interface"):
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    for number in (2, 3):
        monkeypatch.setattr(modeling_flash_attention_utils, f"is_flash_attn_{number}_available", lambda: True)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    yield stand_in
    modeling_flash_attention_utils._loaded_implementation = None  # noqa: SLF001 - a later test loads what is there


def build(config: PreTrainedConfig, kernel: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    # Past the checks for a GPU and for the package.
    model.config._attn_implementation_internal = kernel  # noqa: SLF001 - transformers has no public way
    return model


def tokens() -> Tensor:
    return torch.randint(1, 50, (2, 12), generator=torch.Generator().manual_seed(1))


def every_row(mask: Tensor | None) -> list[RowPlan]:
    """All rows that are no padding, against all keys."""
    places = [
        torch.arange(12) if mask is None else own.nonzero().flatten() for own in (mask if mask is not None else LEFT)
    ]
    return [RowPlan(rows, torch.arange(len(rows)), torch.arange(12)) for rows in places]


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3"])
@pytest.mark.parametrize("config", CONFIGS)
def test_rows_beside_a_flash_kernel_are_those_of_the_kernel(
    flash: FlashStandIn, kernel: str, config: PreTrainedConfig, subtests: pytest.Subtests
) -> None:
    model = build(config, kernel)
    for name, mask in MASKS.items():
        with subtests.test(name):
            flash.weights.clear()
            plans = every_row(mask)
            with torch.no_grad(), capture_rows(model, plans, range(2), "none") as recorder:
                model(tokens(), attention_mask=mask)
            assert len(flash.weights) == 2
            for layer, of_layer in enumerate(flash.weights):
                for found, expected, plan in zip(recorder.maps[layer], of_layer, plans, strict=True):
                    seen = found[..., plan.rows].transpose(0, 1)
                    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
                    total = expected.sum().item()
                    assert found.sum().item() == pytest.approx(total, abs=1e-3)  # nothing falls on padding


def test_rows_beside_a_flash_kernel_with_a_cache_are_those_of_the_kernel(flash: FlashStandIn) -> None:
    model, ids = build(SLIDING, "flash_attention_2"), tokens()
    plans = [RowPlan(torch.tensor([10, 11]), torch.tensor([0, 1]), torch.arange(12)) for _ in range(2)]
    with torch.no_grad(), capture_rows(model, plans, range(2), "none") as recorder:
        cache = model(ids[:, :10], attention_mask=LEFT[:, :10], use_cache=True).past_key_values
        for end in (11, 12):
            cached = {"cache" if "cache" in signature(model.forward).parameters else "past_key_values": cache}
            model(ids[:, end - 1 : end], attention_mask=LEFT[:, :end], **cached)
    for layer in range(2):
        for step, row in ((1, 0), (2, 1)):
            for b in range(2):
                expected = flash.weights[2 * step + layer][b][:, 0]
                there = recorder.maps[layer][b][row]
                there = there[:, there.sum(0) > 0]
                torch.testing.assert_close(there, expected[:, expected.sum(0) > 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", ["sdpa", "eager", "flash_attention_2"])
@pytest.mark.usefixtures("flash")
def test_the_kernel_keeps_its_name_and_its_bits_and_nothing_is_left_behind(kernel: str) -> None:
    model, ids = build(SLIDING, kernel), tokens()
    before = ALL_ATTENTION_FUNCTIONS.get(kernel)
    names = []
    model.model.layers[1].self_attn.register_forward_pre_hook(
        lambda module, _: names.append(module.config._attn_implementation)  # noqa: SLF001
    )
    with torch.no_grad():
        plain = model(ids, attention_mask=LEFT).logits
        with capture_rows(model, every_row(LEFT), range(2)):
            captured = model(ids, attention_mask=LEFT).logits
        after = model(ids, attention_mask=LEFT).logits
    assert torch.equal(captured, plain)
    assert torch.equal(after, plain)
    assert names == [kernel] * 3
    assert ALL_ATTENTION_FUNCTIONS.get(kernel) is before


def test_rows_beside_a_flash_kernel_from_the_hub_are_those_of_the_kernel(
    flash: FlashStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "kernels-community/flash-attn2"  # what transformers falls back to where flash-attention is not installed
    interface = ALL_ATTENTION_FUNCTIONS["flash_attention_2"]
    monkeypatch.setitem(AttentionInterface._global_mapping, name, interface)  # noqa: SLF001 - undone after the test
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, flash_attention_mask)  # noqa: SLF001
    load = modeling_flash_attention_utils._lazy_imports  # noqa: SLF001
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", lambda *_, **__: load("flash_attention_2"))
    model, plans = build(GROUPED, name), every_row(LEFT)
    with torch.no_grad(), capture_rows(model, plans, [0], "none") as recorder:
        model(tokens(), attention_mask=LEFT)
    for found, expected, plan in zip(recorder.maps[0], flash.weights[0], plans, strict=True):
        torch.testing.assert_close(found[..., plan.rows].transpose(0, 1), expected, atol=1e-5, rtol=0)


PACKED: list[Any] = [
    pytest.param({"position_ids": torch.arange(12)[None] % 7}, id="by position ids"),
    pytest.param(
        {
            "cu_seq_lens_q": torch.tensor([0, 7, 12], dtype=torch.int32),
            "cu_seq_lens_k": torch.tensor([0, 7, 12], dtype=torch.int32),
            "max_length_q": 7,
            "max_length_k": 7,
        },
        id="by lengths",
    ),
]


@pytest.mark.parametrize("packed", PACKED)
def test_packed_sequences_are_refused(flash: FlashStandIn, packed: dict[str, Any]) -> None:
    model = build(GROUPED, "flash_attention_2")
    with (
        pytest.raises(CaptureError, match=r"packed into one.* Give every sequence a line of the batch"),
        torch.no_grad(),
        capture_rows(model, every_row(None)[:1], range(2)),
    ):
        model(tokens()[:1], use_cache=False, **packed)
    assert flash.weights


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.filterwarnings(
    "ignore:flex_attention called without torch.compile", "ignore:_compile flag on create_block"
)
def test_rows_beside_flex_attention_are_those_of_eager_attention(
    config: PreTrainedConfig, subtests: pytest.Subtests
) -> None:
    model, eager = build(config, "flex_attention"), build(config, "eager")
    for name in ("no mask", "padded on the left", "padded on the right"):
        with subtests.test(name):
            mask = MASKS[name]
            plans = every_row(mask)
            with (
                torch.no_grad(),
                torch.compiler.set_stance("force_eager"),  # compiled for a CPU, every shape would take half a minute
                capture_rows(model, plans, range(2), "none") as recorder,
            ):
                model(tokens(), attention_mask=mask)
            with torch.no_grad():
                truth = eager(tokens(), attention_mask=mask, output_attentions=True).attentions
            for layer in range(2):
                for b, plan in enumerate(plans):
                    expected = truth[layer][b][:, plan.rows].transpose(0, 1)
                    torch.testing.assert_close(recorder.maps[layer][b], expected, atol=1e-5, rtol=0)


def test_a_block_mask_that_differs_by_head_is_read_for_every_head() -> None:
    query, key = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)

    def rule(_: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & ((head == 0) | (q - k < 2))

    options = ScoreOptions("flex", scaling=1.0, causal=True, sliding_window=None, softcap=None, sinks=None)
    rows = torch.tensor([3, 5])
    mask = create_block_mask(rule, B=None, H=2, Q_LEN=6, KV_LEN=6, device="cpu")
    of_rows = mask_of_rows(mask, torch.tensor([0]), rows[None], 0, 6, options)
    found = mask_scores(row_scores(query[:, :, rows], key, options), of_rows)
    seen = torch.ones(6, 6).tril()[rows], (torch.ones(6, 6).tril() - torch.ones(6, 6).tril(-2))[rows]
    assert torch.equal(found[0].isfinite(), torch.stack(seen).bool())


@pytest.mark.parametrize("name", ["paged|sdpa", "kernels-community/sage-attn", None])
def test_a_kernel_whose_rules_are_not_known_is_refused(name: str | None) -> None:
    model = build(GROUPED, "sdpa")
    model.config._attn_implementation_internal = name  # noqa: SLF001
    with (
        pytest.raises(CaptureError, match=r'attention kernel .* is not known.*"sdpa", "eager", "flash_attention_2"'),
        capture_rows(model, every_row(None), [0]),
    ):
        pytest.fail("entered")


def test_a_mask_of_a_form_that_the_kernel_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(GROUPED, "sdpa")
    attention = type(model.model.layers[0].self_attn)
    forward = attention.forward
    monkeypatch.setattr(
        attention,
        "forward",
        lambda self, *_, **kwargs: forward(self, **{**kwargs, "attention_mask": torch.ones(12, 12)}),
    )
    with (
        pytest.raises(CaptureError, match=r"sdpa kernel got a mask of a form .*\(12, 12\), with 12 keys"),
        torch.no_grad(),
        capture_rows(model, every_row(None), [0]),
    ):
        model(tokens())


def test_captures_that_overlap_leave_one_another_alone() -> None:
    first, second, ids = build(GROUPED, "sdpa"), build(SLIDING, "sdpa"), tokens()
    kernel = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with torch.no_grad():
        with capture_rows(second, every_row(None), [0], "none") as alone:
            second(ids)
        outer = capture_rows(first, every_row(None), [0], "none")
        recorder = outer.__enter__()
        with capture_rows(second, every_row(None), [0], "none") as inner:
            first(ids)
            second(ids)
        assert outer.__exit__(None, None, None) is False
    assert torch.equal(inner.maps[0][0], alone.maps[0][0])
    assert recorder.maps[0][0].shape == (12, 4, 12)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is kernel


def test_only_the_language_models_passes_find_the_kernel_replaced() -> None:
    """A vision tower, which may call its kernel thousands of times, finds the kernel itself."""
    model, kernels = build(GROUPED, "sdpa"), []
    kernel = ALL_ATTENTION_FUNCTIONS["sdpa"]
    model.model.embed_tokens.register_forward_hook(lambda *_: kernels.append(ALL_ATTENTION_FUNCTIONS["sdpa"]))
    with torch.no_grad(), capture_rows(model, every_row(None), [0]):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is kernel
        model(tokens())
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is kernel
    assert kernels[0] is not kernel


def test_a_pass_that_fails_leaves_the_kernel_as_it_was() -> None:
    model, kernel = build(GROUPED, "sdpa"), ALL_ATTENTION_FUNCTIONS["sdpa"]
    model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
    with torch.no_grad(), capture_rows(model, every_row(None), [0]):
        with pytest.raises(ZeroDivisionError):
            model(tokens())
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is kernel


def test_a_module_that_names_another_eager_function_is_given_it() -> None:
    """Llama 4's vision tower does; that of its language model stands in the same file."""
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 1}
    widths = {"projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32}
    config = Llama4VisionConfig(image_size=32, patch_size=8, **sizes, **widths)
    tower: Any = Llama4VisionModel(config).eval()
    tower.set_attn_implementation("eager")
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tower(pixels).last_hidden_state
        with listen([layer.self_attn for layer in tower.model.layers], lambda *_: None):
            after = tower(pixels).last_hidden_state
    assert torch.equal(before, after)


def test_a_kernel_that_somebody_put_in_the_place_of_sdpa_is_called_and_comes_back() -> None:
    calls = []
    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def own(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return sdpa(*arguments, **options)

    model = build(GROUPED, "sdpa")
    ALL_ATTENTION_FUNCTIONS["sdpa"] = own
    try:
        with torch.no_grad(), capture_rows(model, every_row(None), [0]):
            model(tokens())
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert len(calls) == 2


def test_a_sparse_family_that_looks_at_the_kernels_name_is_not_changed() -> None:
    module = pytest.importorskip("transformers.models.minimax_m3_vl.modeling_minimax_m3_vl")
    config = CONFIG_MAPPING["minimax_m3_vl_text"](
        vocab_size=300,
        hidden_size=64,
        intermediate_size=32,
        dense_intermediate_size=64,
        shared_intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rotary_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        index_n_heads=2,
        index_head_dim=16,
        index_block_size=8,
        index_topk_blocks=2,
        initializer_range=0.2,
        layer_types=["full_attention", "minimax_m3_sparse"] * 2,
        pad_token_id=0,
    )

    def load(kernel: str) -> Any:
        torch.manual_seed(0)
        return module.MiniMaxM3VLForCausalLM._from_config(config, attn_implementation=kernel).eval()  # noqa: SLF001

    ids = torch.randint(3, 300, (1, 96), generator=torch.Generator().manual_seed(0))
    rows = RowPlan(torch.tensor([40, 95]), torch.tensor([0, 1]), torch.arange(96))
    model = load("sdpa")
    with torch.no_grad():
        plain = load("sdpa")(input_ids=ids).logits
        with capture_rows(model, [rows], range(4), "none") as recorder:
            captured = model(input_ids=ids).logits
        after = model(input_ids=ids).logits
        truth = load("eager")(input_ids=ids, output_attentions=True).attentions
    assert torch.equal(captured, plain)
    assert torch.equal(after, plain)
    for layer in range(4):
        expected = truth[layer][0][:, rows.rows].transpose(0, 1)
        torch.testing.assert_close(recorder.maps[layer][0], expected, atol=1e-5, rtol=0)
    assert (truth[1][0] == 0).sum() > (truth[0][0] == 0).sum()  # its second layer is sparse
