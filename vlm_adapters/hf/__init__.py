"""Adapters over models and processors of transformers: the base class, loading, prompts, and capture."""

from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.hf.capture import capture_rows
from vlm_adapters.hf.chat import RenderedPrompt
from vlm_adapters.hf.hidden import capture_hidden_states
from vlm_adapters.hf.image_processor import (
    ImageProcessorWrapper,
    MetaData,
    Padding,
    ProcessedImages,
    wrap_image_processor,
)
from vlm_adapters.hf.native_resolution import NativeResolutionBackbone
from vlm_adapters.hf.published import PublishedCheckpoint, published_in
from vlm_adapters.hf.row_blocks import RowPlan
from vlm_adapters.hf.steering import steered_attention

__all__ = [
    "ImageProcessorWrapper",
    "MetaData",
    "NativeResolutionBackbone",
    "Padding",
    "ProcessedImages",
    "PublishedCheckpoint",
    "RenderedPrompt",
    "RowPlan",
    "TransformersBackbone",
    "capture_hidden_states",
    "capture_rows",
    "published_in",
    "steered_attention",
    "wrap_image_processor",
]
