"""The interface report: what an adapter really does to images and text, found by running it.

Everything is a frozen dataclass of plain values, so that `dataclasses.asdict` gives what `json.dumps` takes. Sizes are
`(height, width)`: of images in pixels, of grids in cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.protocol import BackboneAdapter, HasModel
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import AdapterError
from vlm_adapters.inspection.configs import (
    SpecialToken,
    TextReport,
    TowerReport,
    special_tokens,
    text_config,
    text_report,
    towers,
)
from vlm_adapters.prompt import Prompt

Size = tuple[int, int]

IMAGE_SIZES: tuple[Size, ...] = ((336, 336), (480, 640), (640, 480), (1080, 1920), (100, 300))
"""Square, wide, tall, large, and three times as wide as high."""

TRIAL_SIZE: Size = (96, 160)
"""Of the blank image that passes through the model once; not square, so that the axes tell themselves apart."""

TRIAL_TEXT = "a red circle"


@dataclass(frozen=True)
class ClassNames:
    """Names of the classes at work; None where the adapter has no such part."""

    adapter: str
    model: str | None
    processor: str | None
    image_processor: str | None
    tokenizer: str | None


@dataclass(frozen=True)
class ImageReport:
    """What becomes of a blank image.

    Attributes:
        image: Its size in pixels.
        resized: Size in pixels of what the vision tower sees, padding counted.
        tiles: How many pieces of that size there are.
        patches: Patches of the vision tower, in all tiles.
        tokens: Image tokens in the sequence, separators counted.
        grids: Cells of every grid.
        boxes: `(left, top, right, bottom)` in pixels of the image that every grid covers.
        problem: Why an image of this size cannot be used; the rest is empty then.
    """

    image: Size
    resized: Size | None = None
    tiles: int = 0
    patches: int | None = None
    tokens: int = 0
    grids: tuple[Size, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class TensorReport:
    """A tensor that the model's forward takes, for one prompt with one image."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerReport:
    """What one layer gave in a real forward pass, for one phrase.

    Attributes:
        index: True index of the layer.
        kind: As the config names it.
        attention: Shape `(n, h, w)` per grid; empty where the layer has no attention.
        hidden: Shape `(D, h, w)` per grid.
        on_image: Share of the phrase's attention that falls on the image, mean over heads, in [0, 1].
    """

    index: int
    kind: str
    attention: tuple[tuple[int, ...], ...]
    hidden: tuple[tuple[int, ...], ...]
    on_image: float | None


@dataclass(frozen=True)
class InterfaceReport:
    """All that `probe` finds. `trial_image` and `trial_text` are what passed through the model for `layers`."""

    adapter: str
    checkpoint: str
    revision: str | None
    cell: Size
    classes: ClassNames
    dtype: str | None
    device: str | None
    special_tokens: tuple[SpecialToken, ...]
    images: tuple[ImageReport, ...]
    trial_image: Size
    trial_text: str
    tensors: tuple[TensorReport, ...]
    text: TextReport
    layers: tuple[LayerReport, ...]
    vision: tuple[TowerReport, ...]


def probe(adapter: BackboneAdapter, sizes: Sequence[Size] = IMAGE_SIZES) -> InterfaceReport:
    """Run an adapter on blank images and report what it does.

    Args:
        adapter: Any. What an adapter without a transformers model or processor cannot show is None or empty.
        sizes: Images `(height, width)` to send through its preprocessing.

    Raises:
        AdapterError: The forward pass on a small image fails.
    """
    model = adapter.model if isinstance(adapter, HasModel) else None
    config, processor = getattr(model, "config", None), getattr(adapter, "processor", None)
    vision = tuple(towers(config))
    patch = next((tower.sizes["patch"] for tower in vision if "patch" in tower.sizes), None)
    inputs = adapter.preprocess([Prompt.describe(_blank(TRIAL_SIZE), TRIAL_TEXT, [TRIAL_TEXT])])
    extracted = adapter.extract(inputs, GridRequest(hidden_layers=None))[0]
    return InterfaceReport(
        adapter=adapter.name,
        checkpoint=adapter.info.checkpoint,
        revision=adapter.info.revision,
        cell=adapter.info.cell,
        classes=ClassNames(
            type(adapter).__name__,
            *(_class(part) for part in (model, processor)),
            *(_class(getattr(processor, name, None)) for name in ("image_processor", "tokenizer")),
        ),
        dtype=adapter.info.dtype,
        device=adapter.info.device,
        special_tokens=special_tokens(model, processor),
        images=tuple(_image(adapter, size, patch) for size in sizes),
        trial_image=TRIAL_SIZE,
        trial_text=TRIAL_TEXT,
        tensors=tuple(TensorReport(n, _plain(t.dtype), tuple(t.shape)) for n, t in inputs.tensors.items()),
        text=text_report(config, adapter.info),
        layers=tuple(_layers(adapter, extracted, getattr(text_config(config), "layer_types", None))),
        vision=vision,
    )


def _blank(size: Size) -> Image.Image:
    return Image.new("RGB", (size[1], size[0]), "white")


def _image(adapter: BackboneAdapter, size: Size, patch: int | None) -> ImageReport:
    try:
        inputs = adapter.preprocess([Prompt.describe(_blank(size), TRIAL_TEXT)])
        grids = adapter.locate_image_tokens(inputs)[0]
    except AdapterError as error:
        return ImageReport(size, problem=str(error))
    resized, tiles = _seen(inputs, grids, adapter.info.cell, patch)
    types = inputs.tensors.get("mm_token_type_ids")
    return ImageReport(
        image=size,
        resized=resized,
        tiles=tiles,
        patches=None if patch is None else tiles * (resized[0] // patch) * (resized[1] // patch),
        tokens=sum(grid.tokens.numel() for grid in grids) if types is None else int(types.eq(1).sum()),
        grids=tuple(grid.shape for grid in grids),
        boxes=tuple(grid.box for grid in grids),
    )


def _seen(inputs: BackboneInputs, grids: Sequence[ImageGrid], cell: Size, patch: int | None) -> tuple[Size, int]:
    """Size and number of the pieces that the vision tower sees, from its tensors where they tell it."""
    counts, pixels = inputs.tensors.get("image_grid_thw"), inputs.tensors.get("pixel_values")
    if counts is not None and patch is not None:
        return (int(counts[0, 1]) * patch, int(counts[0, 2]) * patch), 1
    if pixels is not None and pixels.ndim >= 4:
        return (pixels.shape[-2], pixels.shape[-1]), math.prod(pixels.shape[:-3])
    rows, columns = max((grid.shape for grid in grids), key=math.prod, default=(0, 0))
    return (rows * cell[0], columns * cell[1]), 1


def _layers(adapter: BackboneAdapter, extracted: Sequence[Grids], kinds: Sequence[str] | None) -> Iterator[LayerReport]:
    for index in range(adapter.info.num_layers):
        maps = [grids.attention[0, grids.layers.index(index)] for grids in extracted if index in grids.layers]
        hidden = [grids.hidden[grids.hidden_layers.index(index)] for grids in extracted if index in grids.hidden_layers]
        yield LayerReport(
            index=index,
            kind=kinds[index] if kinds else "full_attention" if maps else "no attention",
            attention=tuple(tuple(each.shape) for each in maps),
            hidden=tuple(tuple(each.shape) for each in hidden),
            on_image=sum(float(each.sum(dim=(1, 2)).mean()) for each in maps) if maps else None,
        )


def _class(part: object) -> str | None:
    return None if part is None else type(part).__name__


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
