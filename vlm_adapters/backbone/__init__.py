"""The protocol that every adapter speaks, and the data that pass through it."""

from vlm_adapters.backbone.divergence import Divergence, measure_divergence
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.layout import ImageLayout, fit_square, square_layout, tile_spans
from vlm_adapters.backbone.protocol import (
    BackboneAdapter,
    BackboneInfo,
    GenerationOptions,
    SupportsGeneration,
    SupportsPointing,
)
from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.backbone.tiles import select_tiles, tiled_layouts

__all__ = [
    "BackboneAdapter",
    "BackboneInfo",
    "BackboneInputs",
    "Divergence",
    "GenerationOptions",
    "GridRequest",
    "Grids",
    "ImageGrid",
    "ImageLayout",
    "SupportsGeneration",
    "SupportsPointing",
    "fit_square",
    "measure_divergence",
    "resolve_heads",
    "resolve_layers",
    "select_tiles",
    "square_layout",
    "tile_spans",
    "tiled_layouts",
]
