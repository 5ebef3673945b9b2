"""One protocol for frozen vision-language backbones: exact attention and hidden-state grids, and masks from them.

Every name is imported when it is first used, so that the command line starts without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
    from vlm_adapters.backbone.layout import ImageLayout, fit_square, square_layout
    from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo, SupportsGeneration, SupportsPointing
    from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
    from vlm_adapters.data.dataset import Dataset
    from vlm_adapters.data.open import open_dataset
    from vlm_adapters.data.sample import Sample
    from vlm_adapters.decoder.features import FeatureRequest
    from vlm_adapters.errors import (
        AdapterError,
        BackboneError,
        CacheError,
        CaptureError,
        CheckpointError,
        DataError,
        DecoderError,
        ImageError,
        OptionError,
        OutputError,
        PhraseError,
        PluginError,
        PromptError,
        RecipeError,
        RequestError,
        UnknownAdapterError,
    )
    from vlm_adapters.geometry import CoordinateFrame, place_map
    from vlm_adapters.grounding.base import Grounder
    from vlm_adapters.grounding.boxes import BoxAnswer, BoxGrounder
    from vlm_adapters.grounding.decoded import GroundedVLM
    from vlm_adapters.grounding.heads import HeadGrounder
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.grounding.result import GroundedPhrase, Grounding
    from vlm_adapters.heads.profile import HeadProfile
    from vlm_adapters.hf.backbone import TransformersBackbone
    from vlm_adapters.hf.chat import RenderedPrompt
    from vlm_adapters.hf.image_processor import (
        ImageProcessorWrapper,
        MetaData,
        Padding,
        ProcessedImages,
        wrap_image_processor,
    )
    from vlm_adapters.images import load_image
    from vlm_adapters.prompt import Message, Phrase, Prompt
    from vlm_adapters.registry.discovery import AdapterEntry, list_adapters
    from vlm_adapters.registry.hookspecs import hookimpl
    from vlm_adapters.registry.loading import load_adapter
    from vlm_adapters.registry.spec import AdapterSpec
    from vlm_adapters.training.cache.build import CachedSamples
    from vlm_adapters.training.loop import train
    from vlm_adapters.training.recipe import Recipe

    __version__: str

__all__ = [
    "AdapterEntry",
    "AdapterError",
    "AdapterSpec",
    "BackboneAdapter",
    "BackboneError",
    "BackboneInfo",
    "BackboneInputs",
    "BoxAnswer",
    "BoxGrounder",
    "CacheError",
    "CachedSamples",
    "CaptureError",
    "CheckpointError",
    "CoordinateFrame",
    "DataError",
    "Dataset",
    "DecoderError",
    "FeatureRequest",
    "GridRequest",
    "Grids",
    "GroundedPhrase",
    "GroundedVLM",
    "Grounder",
    "Grounding",
    "HeadGrounder",
    "HeadProfile",
    "ImageError",
    "ImageGrid",
    "ImageLayout",
    "ImageProcessorWrapper",
    "Message",
    "MetaData",
    "OptionError",
    "OutputError",
    "Padding",
    "Phrase",
    "PhraseError",
    "PluginError",
    "ProcessedImages",
    "Prompt",
    "PromptError",
    "Recipe",
    "RecipeError",
    "RenderedPrompt",
    "RequestError",
    "Sample",
    "SupportsGeneration",
    "SupportsPointing",
    "TransformersBackbone",
    "UnknownAdapterError",
    "__version__",
    "fit_square",
    "hookimpl",
    "list_adapters",
    "load_adapter",
    "load_grounder",
    "load_image",
    "open_dataset",
    "place_map",
    "resolve_heads",
    "resolve_layers",
    "square_layout",
    "train",
    "wrap_image_processor",
]

_NAMES_BY_MODULE = {
    "backbone.grids": "BackboneInputs Grids ImageGrid",
    "backbone.layout": "ImageLayout fit_square square_layout",
    "backbone.protocol": "BackboneAdapter BackboneInfo SupportsGeneration SupportsPointing",
    "backbone.request": "GridRequest resolve_heads resolve_layers",
    "data.dataset": "Dataset",
    "data.open": "open_dataset",
    "data.sample": "Sample",
    "decoder.features": "FeatureRequest",
    "errors": "AdapterError BackboneError CacheError CaptureError CheckpointError DataError DecoderError "
    "ImageError OptionError OutputError PhraseError PluginError PromptError RecipeError RequestError "
    "UnknownAdapterError",
    "geometry": "CoordinateFrame place_map",
    "grounding.base": "Grounder",
    "grounding.boxes": "BoxAnswer BoxGrounder",
    "grounding.decoded": "GroundedVLM",
    "grounding.heads": "HeadGrounder",
    "grounding.load": "load_grounder",
    "grounding.result": "GroundedPhrase Grounding",
    "heads.profile": "HeadProfile",
    "hf.backbone": "TransformersBackbone",
    "hf.chat": "RenderedPrompt",
    "hf.image_processor": "ImageProcessorWrapper MetaData Padding ProcessedImages wrap_image_processor",
    "images": "load_image",
    "prompt": "Message Phrase Prompt",
    "registry.discovery": "AdapterEntry list_adapters",
    "registry.hookspecs": "hookimpl",
    "registry.loading": "load_adapter",
    "registry.spec": "AdapterSpec",
    "training.cache.build": "CachedSamples",
    "training.loop": "train",
    "training.recipe": "Recipe",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - reading metadata takes longer than everything else here

        return version("vlm-adapters")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    except ImportError:
        from vlm_adapters.registry.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
