"""The vision tower as transformers runs it and with its windows together, alone and as part of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from inspect import signature
from typing import Any

import torch

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.hf.windows import batched_windows
from vlm_adapters.inspection.bench.measure import Measurement, Section, Variant
from vlm_adapters.inspection.bench.peaks import time_and_memory
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import inputs_of, length_of, load_model, plain_pass, windows


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Time and peak memory of the tower, and of a pass with it."""
    tokens = settings.image_tokens[0]
    length = length_of(inputs_of(load_model(settings), tokens))
    for title, make in (("Vision tower alone", make_tower), ("Pass with the vision tower", make_passes)):
        variants = make(settings, tokens)
        if not variants:
            note = "the model has no vision tower that runs alone"
            yield Section("tower", title, (Measurement("vision tower", note=note),), tokens=length)
            continue
        rows = time_and_memory(make, settings, tokens, variants)
        yield Section("tower", f"{title}: {length:,} tokens", rows, tokens=length)


def make_tower(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """The tower alone; nothing for a model without one."""
    adapter = load_model(settings)
    model: Any = adapter.model.base_model
    if not hasattr(model, "get_image_features"):
        return {}
    arguments = _tower_arguments(model, inputs_of(adapter, tokens))
    run = torch.no_grad()(partial(model.get_image_features, **arguments))
    return {
        "as transformers runs it": Variant(run),
        "windows together": Variant(run, partial(batched_windows, adapter.model)),
    }


def make_passes(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """A pass as transformers runs it, and rows with the tower both ways."""
    adapter = load_model(settings)
    inputs = inputs_of(adapter, tokens)
    extract = partial(adapter.extract, inputs, GridRequest())
    return {
        "plain pass": Variant(partial(plain_pass, adapter, inputs)),
        "rows, tower as it is": Variant(extract, partial(windows, adapter, together=False)),
        "rows, windows together": Variant(extract, partial(windows, adapter, together=True)),
    }


def _tower_arguments(model: Any, inputs: BackboneInputs) -> dict[str, torch.Tensor]:
    accepted = signature(model.get_image_features).parameters
    return {name: tensor for name, tensor in inputs.tensors.items() if name in accepted}
