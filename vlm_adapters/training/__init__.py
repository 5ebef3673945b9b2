"""Training decoders over frozen backbones, from caches or with the backbone in the loop.

Every name is imported when it is first used: the loop needs the extra `train`, and a recipe does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache
    from vlm_adapters.training.cache.fingerprint import CacheFingerprint
    from vlm_adapters.training.cache.forecast import Forecast, forecast
    from vlm_adapters.training.checkpoint import RunState
    from vlm_adapters.training.data import TrainingData, build_caches, load_backbone
    from vlm_adapters.training.log import Step, read_log
    from vlm_adapters.training.loop import train
    from vlm_adapters.training.recipe import Recipe, recipe_names
    from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples, LiveSamples

__all__ = [
    "BuildProgress",
    "CacheFingerprint",
    "CachedSamples",
    "ExtractedSample",
    "ExtractedSamples",
    "Forecast",
    "LiveSamples",
    "Recipe",
    "RunState",
    "Step",
    "TrainingData",
    "build_cache",
    "build_caches",
    "forecast",
    "load_backbone",
    "read_log",
    "recipe_names",
    "train",
]

_NAMES_BY_MODULE = {
    "cache.build": "BuildProgress CachedSamples build_cache",
    "cache.fingerprint": "CacheFingerprint",
    "cache.forecast": "Forecast forecast",
    "checkpoint": "RunState",
    "data": "TrainingData build_caches load_backbone",
    "log": "Step read_log",
    "loop": "train",
    "recipe": "Recipe recipe_names",
    "samples": "ExtractedSample ExtractedSamples LiveSamples",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
