"""Building a cache, against bare passes of the model over the same samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.bench.measure import Section, Variant, take_turns
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import load_model, plain_pass
from vlm_adapters.training.cache.build import build_cache
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.cache.index import CacheIndex
from vlm_adapters.training.samples import LiveSamples


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Time of a build with all it does, down to the files."""
    variants = make_variants(settings)
    rows = take_turns(variants, device=settings.device, repeats=settings.repeats, seconds=settings.seconds)
    bare, build = (row.seconds for row in rows)
    facts: dict[str, float | int | str] = {}
    if bare and build:
        rates = settings.samples / build, settings.samples / bare
        facts = {"samples a second": rates[0], "bare passes a second": rates[1], "share": rates[0] / rates[1]}
    yield Section("cache", f"Cache of {settings.samples} scenes", tuple(rows), facts)


def make_variants(settings: BenchSettings) -> dict[str, Variant]:
    """Bare passes over what was preprocessed before, and a build into a new folder."""
    adapter = load_model(settings)
    data = open_dataset(f"scenes:count={settings.samples},seed=3")
    inputs = [adapter.preprocess([data[index].prompt]) for index in range(len(data))]
    live = LiveSamples(adapter, data, CacheFingerprint.of(adapter, data.source, FeatureRequest()))
    return {"bare passes": Variant(partial(_passes, adapter, inputs)), "cache build": Variant(partial(_build, live))}


def _passes(adapter: TransformersBackbone, inputs: Sequence[BackboneInputs]) -> None:
    for of_sample in inputs:
        plain_pass(adapter, of_sample)


def _build(live: LiveSamples) -> CacheIndex:
    with tempfile.TemporaryDirectory(prefix="vlm-adapters-bench-") as folder:
        return build_cache(live, Path(folder, "cache"))
