"""The bench as a whole: part after part, each reported as soon as it was measured."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from vlm_adapters.errors import OptionError
from vlm_adapters.inspection.bench import bound, cache, early_stop, ground, language_model, rows, sentences, tower
from vlm_adapters.inspection.bench.measure import Section
from vlm_adapters.inspection.bench.settings import PARTS, BenchSettings
from vlm_adapters.inspection.bench.subject import load_model

MEASURES: dict[str, Callable[[BenchSettings], Iterator[Section]]] = {
    "rows": rows.measure,
    "tower": tower.measure,
    "layers": early_stop.measure,
    "sentences": sentences.measure,
    "cache": cache.measure,
    "ground": ground.measure,
    "bound": bound.measure,
}


def run_bench(settings: BenchSettings) -> Iterator[Section]:
    """Measure part after part, in the order given.

    Raises:
        OptionError: A part or the device does not exist.
        CheckpointError: The model does not exist.
    """
    if unknown := [part for part in settings.parts if part not in PARTS]:
        raise OptionError(f"There is no part {unknown[0]!r}. Give some of {', '.join(PARTS)}.")
    if settings.model is None:
        yield from language_model.measure(settings)
        return
    load_model(settings)
    for part in settings.parts:
        yield from MEASURES[part](settings)


def as_dict(settings: BenchSettings, sections: Iterable[Section], command: str) -> dict[str, object]:
    """All that a reader needs: what was measured, where, when and with what."""
    return {
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(settings.device),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "vlm-adapters")},
        "settings": asdict(settings),
        "sections": [asdict(section) for section in sections],
    }


def machine(device: str) -> str:
    """The card, or the cores, in words."""
    if torch.device(device).type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpus.read_text(encoding="utf-8")) if cpus.is_file() else []
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"
