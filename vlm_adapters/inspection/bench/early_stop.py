"""Passes that end after the last layer that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.inspection.bench.measure import Section, Variant, take_turns
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import inputs_of, length_of, load_model, plain_pass

MOST_STEPS = 8
"""No curve has more points."""


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Time of a pass that gives the rows of one layer, over its depth."""
    tokens = settings.image_tokens[0]
    variants = make_variants(settings, tokens)
    rows = take_turns(variants, device=settings.device, repeats=settings.repeats, seconds=settings.seconds)
    length = length_of(inputs_of(load_model(settings), tokens))
    yield Section("layers", f"Early stop: {length:,} tokens, rows of one layer", tuple(rows), tokens=length)


def make_variants(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """A plain pass, and passes up to ever deeper layers."""
    adapter = load_model(settings)
    inputs = inputs_of(adapter, tokens)
    layers = adapter.info.attention_layers
    steps = min(MOST_STEPS, len(layers))
    chosen = sorted({layers[round((step + 1) * len(layers) / steps) - 1] for step in range(steps)})
    return {"plain pass": Variant(partial(plain_pass, adapter, inputs))} | {
        f"{layer + 1} layer{'s' * (layer > 0)}": Variant(partial(adapter.extract, inputs, GridRequest(layers=[layer])))
        for layer in chosen
    }
