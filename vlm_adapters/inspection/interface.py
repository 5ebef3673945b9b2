"""The interface report: what an adapter does to images and text, found by running it.

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
from vlm_adapters.embedded.unlike_scenes import images_of_our_own
from vlm_adapters.errors import AdapterError
from vlm_adapters.geometry import Box, Size
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

IMAGE_SIZES: tuple[Size, ...] = ((336, 336), (480, 640), (640, 480), (1080, 1920), (100, 300))
"""Square, wide, tall, large, and three times as wide as high."""

TRIAL_SIZE: Size = (96, 160)
"""Size of the blank image that passes through the model once; not square, so that the axes differ."""

TRIAL_TEXT = "a red circle"


@dataclass(frozen=True)
class ClassNames:
    """Names of the classes at work; None for a part that the adapter does not have.

    Attributes:
        adapter: Class of the adapter.
        model: Class of its model.
        processor: Class of its processor.
        image_processor: Class of the processor's image processor.
        tokenizer: Class of the processor's tokenizer.
    """

    adapter: str
    model: str | None
    processor: str | None
    image_processor: str | None
    tokenizer: str | None


@dataclass(frozen=True)
class ImageReport:
    """The result of preprocessing a blank image.

    Attributes:
        image: Size of the image in pixels.
        resized: Size in pixels of what the vision tower sees, padding included.
        tiles: Number of pieces of that size.
        patches: Number of patches of the vision tower, in all tiles.
        tokens: Number of image tokens in the sequence, separators included.
        grids: Number of cells of every grid, `(h, w)`.
        boxes: `(left, top, right, bottom)` in pixels of the image of every grid; None of tokens without places.
        problem: Reason why an image of this size cannot be used; the other fields are empty then.
    """

    image: Size
    resized: Size | None = None
    tiles: int = 0
    patches: int | None = None
    tokens: int = 0
    grids: tuple[Size, ...] = ()
    boxes: tuple[Box | None, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class TensorReport:
    """A tensor that the model's forward takes, for one prompt with one image.

    Attributes:
        name: Name of the argument.
        dtype: Dtype of the tensor, such as `float32`.
        shape: Shape of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerReport:
    """The output of one layer in a forward pass, for one phrase.

    Attributes:
        index: True index of the layer.
        kind: Type of the layer, as the config names it.
        attention: Shape `(n, h, w)` per grid; empty for a layer without attention.
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
    """The result of `probe`.

    Attributes:
        adapter: Name of the adapter.
        checkpoint: Checkpoint that it was loaded from.
        revision: Commit of the checkpoint.
        cell: Pixels of the resized image that one image token covers.
        classes: Names of the classes at work.
        dtype: Dtype of the weights.
        device: Device of the results.
        special_tokens: Ids with a role.
        images: Results of preprocessing blank images.
        trial_image: Size of the image that passed through the model for `layers`.
        trial_text: Text that passed through the model for `layers`.
        tensors: Inputs of that pass.
        text: Sizes of the language model.
        layers: Outputs of that pass.
        vision: The vision towers.
    """

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


@images_of_our_own()
def probe(adapter: BackboneAdapter, sizes: Sequence[Size] = IMAGE_SIZES) -> InterfaceReport:
    """Run an adapter on blank images and report what it does.

    Args:
        adapter: Any adapter. Fields that need a transformers model or processor are None or empty without one.
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
    """Size and number of the pieces that the vision tower sees, from its tensors if possible."""
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
