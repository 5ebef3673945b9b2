"""One protocol for frozen vision-language backbones: exact attention and hidden-state grids, and masks from them.

Every name is imported when it is first used, so that the command line starts without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_adapters.abilities import CoordinateFrame, SupportsGeneration, SupportsPointing
    from vlm_adapters.backbone import BackboneAdapter, BackboneInfo, BackboneInputs, Grids, ImageGrid, place_map
    from vlm_adapters.chat import RenderedPrompt
    from vlm_adapters.data.dataset import Dataset
    from vlm_adapters.data.opening import open_dataset
    from vlm_adapters.data.sample import Sample
    from vlm_adapters.decoder.box_grounder import BoxAnswer, BoxGrounder
    from vlm_adapters.decoder.choose import load_grounder
    from vlm_adapters.decoder.features import FeatureRequest
    from vlm_adapters.decoder.grounder import GroundedPhrase, GroundedVLM, Grounder, Grounding
    from vlm_adapters.decoder.head_grounder import HeadGrounder
    from vlm_adapters.decoder.profile import HeadProfile
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
    from vlm_adapters.hookspecs import hookimpl
    from vlm_adapters.image_processor import (
        ImageProcessorWrapper,
        MetaData,
        Padding,
        ProcessedImages,
        wrap_image_processor,
    )
    from vlm_adapters.images import load_image
    from vlm_adapters.loading import load_adapter
    from vlm_adapters.prompt import Message, Phrase, Prompt
    from vlm_adapters.registry import AdapterEntry, list_adapters
    from vlm_adapters.request import GridRequest, resolve_heads, resolve_layers
    from vlm_adapters.spec import AdapterSpec
    from vlm_adapters.training.cache import CachedSamples
    from vlm_adapters.training.loop import train
    from vlm_adapters.training.recipe import Recipe
    from vlm_adapters.transformers_backbone import TransformersBackbone
    from vlm_adapters.view import View, fit_square, square_view

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
    "View",
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
    "square_view",
    "train",
    "wrap_image_processor",
]

_NAMES_BY_MODULE = {
    "abilities": "CoordinateFrame SupportsGeneration SupportsPointing",
    "backbone": "BackboneAdapter BackboneInfo BackboneInputs Grids ImageGrid place_map",
    "chat": "RenderedPrompt",
    "data.dataset": "Dataset",
    "data.opening": "open_dataset",
    "data.sample": "Sample",
    "decoder.box_grounder": "BoxAnswer BoxGrounder",
    "decoder.choose": "load_grounder",
    "decoder.features": "FeatureRequest",
    "decoder.grounder": "GroundedPhrase GroundedVLM Grounder Grounding",
    "decoder.head_grounder": "HeadGrounder",
    "decoder.profile": "HeadProfile",
    "errors": "AdapterError BackboneError CacheError CaptureError CheckpointError DataError DecoderError ImageError "
    "OptionError OutputError PhraseError PluginError PromptError RecipeError RequestError UnknownAdapterError",
    "hookspecs": "hookimpl",
    "image_processor": "ImageProcessorWrapper MetaData Padding ProcessedImages wrap_image_processor",
    "images": "load_image",
    "loading": "load_adapter",
    "prompt": "Message Phrase Prompt",
    "registry": "AdapterEntry list_adapters",
    "request": "GridRequest resolve_heads resolve_layers",
    "spec": "AdapterSpec",
    "training.cache": "CachedSamples",
    "training.loop": "train",
    "training.recipe": "Recipe",
    "transformers_backbone": "TransformersBackbone",
    "view": "View fit_square square_view",
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
        from vlm_adapters.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
