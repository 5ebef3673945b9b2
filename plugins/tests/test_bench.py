"""The bench on embedded models: that every variant is what its name says, and that every part gives its sections."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.bench import bound, early_stop, rows, sentences, subject, tower
from vlm_adapters.inspection.bench.measure import Section, Variant, take_turns
from vlm_adapters.inspection.bench.run import run_bench
from vlm_adapters.inspection.bench.settings import PARTS, BenchSettings
from vlm_adapters.registry.loading import load_published

TINY = BenchSettings("tiny-qwen2_5_vl", image_tokens=(300,), sentences=4, samples=2, phrases=2, repeats=1)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often torch's fused attention is called."""
    calls: Counter[str] = Counter()
    stock = functional.scaled_dot_product_attention

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        calls["sdpa"] += 1
        return stock(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    return calls


def calls_of(variant: Variant, calls: Counter[str]) -> int:
    calls.clear()
    with variant.within():
        variant.run()
    return calls["sdpa"]


def test_tower_calls_its_kernel_less_often_with_windows_together(kernel_calls: Counter[str]) -> None:
    stock, together = (calls_of(variant, kernel_calls) for variant in tower.make_tower(TINY, 300).values())
    assert together < stock


def test_pass_with_windows_together_calls_the_kernel_less_often(kernel_calls: Counter[str]) -> None:
    plain, as_it_is, together = (calls_of(variant, kernel_calls) for variant in tower.make_passes(TINY, 300).values())
    assert plain == as_it_is > together


def test_rows_run_the_fused_kernel_as_often_as_the_plain_pass(kernel_calls: Counter[str]) -> None:
    variants = rows.make_variants(TINY, 300)
    assert calls_of(variants["rows"], kernel_calls) == calls_of(variants["plain pass"], kernel_calls) > 0


def test_eager_variant_runs_no_fused_kernel_and_leaves_the_model_as_it_was(kernel_calls: Counter[str]) -> None:
    variants = rows.make_variants(TINY, 300)
    assert calls_of(variants["output_attentions"], kernel_calls) == 0
    assert calls_of(variants["plain pass"], kernel_calls) > 0


def test_eager_variant_gives_the_attention_of_all_layers() -> None:
    adapter = subject.load_model(TINY)
    with subject.kernel(adapter, "eager"):
        output = subject.plain_pass(adapter, subject.inputs_of(adapter, 300), output_attentions=True)
    assert len(output.attentions) == adapter.info.num_layers  # type: ignore[attr-defined]


def test_bytes_of_eager_are_at_least_those_of_the_matrices_it_returns() -> None:
    adapter = subject.load_model(TINY)
    inputs = subject.inputs_of(adapter, 300)
    with subject.kernel(adapter, "eager"):
        output = subject.plain_pass(adapter, inputs, output_attentions=True)
    returned = sum(layer.nbytes for layer in output.attentions)  # type: ignore[attr-defined]
    assert returned <= rows.eager_bytes(adapter, inputs) <= 4 * returned


def test_eager_is_skipped_with_its_size_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "free_bytes", lambda _: 1000)
    (section,) = rows.measure(TINY)
    assert section.rows[-1].variant == "output_attentions"
    assert section.rows[-1].seconds is None
    assert "MB, and 1.0 kB are free" in section.rows[-1].note


def test_early_stop_runs_ever_more_kernels(kernel_calls: Counter[str]) -> None:
    variants = early_stop.make_variants(TINY, 300)
    assert list(variants) == ["plain pass", "1 layer", *(f"{layers} layers" for layers in range(2, 7))]
    counts = [calls_of(variant, kernel_calls) for name, variant in variants.items() if name != "plain pass"]
    assert counts == [counts[0] + layer for layer in range(6)]


def test_shared_tokens_are_the_beginning_once_and_every_rest() -> None:
    adapter = subject.load_model(TINY)
    prompts = sentences.prompts_of(adapter, 300, 3)
    each = [adapter.preprocess([prompt]).tensors["input_ids"][0].tolist() for prompt in prompts]
    common = next(i for i in range(len(each[0])) if len({tuple(ids[: i + 1]) for ids in each}) > 1)
    inputs = adapter.preprocess(prompts)
    assert sentences.shared_tokens(inputs) == common + sum(len(ids) - common for ids in each)
    assert sentences.bound_of(inputs) == pytest.approx(sum(map(len, each)) / sentences.shared_tokens(inputs))


def test_images_become_about_as_many_tokens_as_asked_for() -> None:
    adapter = subject.load_model(TINY)
    (tokens,) = (len(image) for image in subject.inputs_of(adapter, 300).image_tokens[0])
    assert tokens == pytest.approx(300, rel=0.05)


def test_random_weights_are_other_weights_of_the_same_model() -> None:
    stock = subject.load_model(TINY)
    made = subject.with_random_weights(stock, "cpu", "bfloat16")
    assert isinstance(made, TransformersBackbone)
    assert type(made) is type(stock)
    shapes = {name: weight.shape for name, weight in stock.model.named_parameters()}
    assert {name: weight.shape for name, weight in made.model.named_parameters()} == shapes
    assert {weight.dtype for weight in made.model.parameters()} == {torch.bfloat16}
    tables = {name: table for name, table in stock.model.named_buffers() if table.is_floating_point()}
    for name, table in made.model.named_buffers():
        if name in tables:
            torch.testing.assert_close(table.float(), tables[name], msg=name)


@pytest.fixture(scope="module")
def measured() -> list[Section]:
    return list(run_bench(replace(TINY, seconds=0)))


def test_every_part_gives_a_section(measured: list[Section]) -> None:
    assert [part for part in PARTS if part not in {section.part for section in measured}] == []
    assert all(row.seconds for section in measured for row in section.rows)


def test_parts_are_measured_in_the_order_given() -> None:
    sections = run_bench(replace(TINY, seconds=0, parts=("ground", "layers")))
    assert [section.part for section in sections] == ["ground", "layers"]


def test_parts_of_ground_make_up_all_of_it(measured: list[Section]) -> None:
    (section,) = (section for section in measured if section.part == "ground")
    shares = {row.variant: row.ratio or 0 for row in section.rows}
    assert list(shares) == ["ground", "read", "preprocess", "backbone", "decoder", "placing", "writing"]
    assert sum(shares.values()) - shares["ground"] == pytest.approx(1)


def test_ground_takes_an_image_of_another_size() -> None:
    (section,) = run_bench(replace(TINY, parts=("ground",), image=(60, 90)))
    assert section.title.startswith("ground: 90 x 60 pixels, 2 phrases")


def test_bound_is_below_the_time_of_a_pass(measured: list[Section]) -> None:
    facts = next(section.facts for section in measured if section.part == "bound")
    assert float(facts["plain pass, x of the bound"]) > 1


def shrunk(name: str) -> TransformersBackbone:
    """A published checkpoint with few and narrow layers, still without weights."""
    adapter = load_published(name)
    assert isinstance(adapter, TransformersBackbone)
    text, vision = adapter.model.config.get_text_config(), getattr(adapter.model.config, "vision_config", None)
    text.num_hidden_layers, text.intermediate_size = 2, 64
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:2]
    if vision is not None and hasattr(vision, "depth"):
        vision.depth = 1
    elif vision is not None:
        vision.num_hidden_layers = 1
    return adapter


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "length", "recorded"),
    [("Qwen/Qwen2-VL-2B-Instruct", 400, 30), ("llava-hf/llava-1.5-7b-hf", 700, 30)],
)
def test_published_checkpoints_are_measured_without_a_download(
    monkeypatch: pytest.MonkeyPatch, name: str, length: int, recorded: int
) -> None:
    monkeypatch.setattr(subject, "load_published", shrunk)
    monkeypatch.setattr(
        rows,
        "time_and_memory",
        lambda make, settings, tokens, _: take_turns(make(settings, tokens), device="cpu", repeats=1),
    )  # without new processes, which would build it at full size
    settings = replace(TINY, model=name, dtype="bfloat16", parts=("rows", "layers"))
    section, stops = run_bench(settings)
    assert section.tokens == pytest.approx(length, rel=0.2)
    assert section.facts["rows"] == recorded
    assert [row.variant for row in stops.rows] == ["plain pass", "1 layer", "2 layers"]


def test_flops_are_those_of_the_products() -> None:
    query, linear = torch.ones(1, 2, 64, 8), torch.nn.Linear(8, 5)
    assert bound.count_flops(lambda: linear(query)) == 2 * 2 * 64 * 8 * 5
    count = bound.count_flops(lambda: functional.scaled_dot_product_attention(query, query, query, is_causal=True))
    assert count == 2 * 2 * 2 * 64 * 64 * 8


@pytest.mark.parametrize(
    ("kernel", "options"),
    [("flash", (0.0, True)), ("efficient", (None, False, 0.0, True)), ("cudnn", (None, False, 0.0, True))],
)
def test_flops_of_kernels_of_a_gpu_count_every_head_that_shares_keys(kernel: str, options: tuple[object, ...]) -> None:
    query, keys = (torch.empty(1, heads, 64, 8, dtype=torch.bfloat16, device="meta") for heads in (14, 2))
    fused = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    assert bound.count_flops(lambda: fused(query, keys, keys, *options)) == 14 * 2 * 2 * 64 * 64 * 8
