"""Rows of a language model alone, with random weights: only the ratios matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from transformers import AutoModel, PreTrainedModel, Qwen2Config

from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.inspection.bench.measure import Section, Variant
from vlm_adapters.inspection.bench.peaks import memory_facts, time_and_memory
from vlm_adapters.inspection.bench.settings import BenchSettings

_ROWS_OF_A_PHRASE = 4


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Time and peak memory of a pass without rows, with rows, with states, and with `output_attentions`."""
    settings = replace(settings, seconds=float("inf"))  # it is the only part
    of, variants = settings.sizes, make_variants(settings, 0)
    rows = time_and_memory(make_variants, settings, 0, variants)
    title = (
        f"Language model: {of.layers} layers of width {of.heads * of.head_size}, {of.length:,} tokens, {of.rows} rows"
    )
    groups, columns = (of.rows + _ROWS_OF_A_PHRASE - 1) // _ROWS_OF_A_PHRASE, of.length // 2
    facts = memory_facts(rows, of.layers * of.heads * groups * columns * 4)
    yield Section("language model", title, rows, facts, tokens=of.length)


def make_variants(settings: BenchSettings, _: int) -> dict[str, Variant]:
    """The pass in all variants."""
    of = settings.sizes
    model = _model(settings, "sdpa")
    ids = torch.randint(1000, (1, of.length), device=settings.device)
    plan = RowPlan(
        rows=torch.arange(of.length - of.rows, of.length),
        groups=torch.arange(of.rows) // _ROWS_OF_A_PHRASE,
        columns=torch.arange(of.length // 2),
    )

    @torch.no_grad()
    def plain() -> None:
        model(ids, use_cache=False)

    @torch.no_grad()
    def with_rows(*, states: bool = False) -> None:
        layers = range(of.layers)
        with (
            capture_rows(model, [plan], layers),
            capture_hidden_states(model, layers if states else (), [plan.rows], ids.device),
        ):
            model(ids, use_cache=False)

    @torch.no_grad()
    def eager() -> None:
        attentions = _model(settings, "eager")(ids, use_cache=False, output_attentions=True).attentions
        # The part that a user would need; the S x S matrices were made nevertheless.
        [layer[0, :, plan.rows][..., plan.columns] for layer in attentions]

    variants = {
        "plain pass": Variant(plain),
        "rows": Variant(with_rows),
        "rows and states": Variant(lambda: with_rows(states=True)),
    }
    return variants | ({"output_attentions": Variant(eager)} if settings.eager else {})


@lru_cache(maxsize=2)
def _model(settings: BenchSettings, kernel: str) -> PreTrainedModel:
    of = settings.sizes
    width = of.heads * of.head_size
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=of.layers,
        num_attention_heads=of.heads,
        num_key_value_heads=max(1, of.heads // 7),
        max_position_embeddings=of.length,
    )
    torch.manual_seed(0)
    with torch.device(settings.device):
        model: PreTrainedModel = AutoModel.from_config(
            config, dtype=getattr(torch, settings.dtype), attn_implementation=kernel
        )
    model.eval()
    return model
