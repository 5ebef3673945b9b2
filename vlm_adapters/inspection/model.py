"""A report on a loaded adapter: its sizes, what it makes of an image, and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo, HasModel
from vlm_adapters.backbone.request import LayerChoice
from vlm_adapters.decoder.checkpoint import CONFIG_FILE, EMBEDDED_FOLDER, DecoderConfig
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import BackboneError, CaptureError, OptionError
from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.fit import FitReport
from vlm_adapters.inspection.memory import DTYPE, PassMemory, pass_memory
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.versions import typed_errors


@dataclass(frozen=True)
class Trial:
    """The image and text for which sizes are reported.

    Attributes:
        image: `(H, W)` in pixels.
        text_tokens: Number of tokens of text beside the image's.
        rows: Number of attention rows, each of one token of the text.
    """

    image: Size = (480, 640)
    text_tokens: int = 64
    rows: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= self.text_tokens:
            raise OptionError(
                f"{self.rows} rows of {self.text_tokens} tokens of text are impossible: a row belongs to one token of "
                "text. Give at least one row, and at least as many tokens of text."
            )


@dataclass(frozen=True)
class ForwardReport:
    """The sequence that a trial becomes, and its memory.

    Attributes:
        trial: The image and text.
        grids: Number of cells `(h, w)` of every grid.
        image_tokens: Number of tokens of the image, including those that are not cells.
        tokens: Length of the sequence.
        weight_bytes: Bytes of all weights in bfloat16.
        memory: Memory of one pass over the sequence; None if it cannot be counted.
        problem: Reason why the memory cannot be counted.
    """

    trial: Trial
    grids: tuple[Size, ...]
    image_tokens: int
    tokens: int
    weight_bytes: int
    memory: PassMemory | None
    problem: str | None


@dataclass(frozen=True)
class DecoderReport:
    """The mask decoder that comes with a checkpoint.

    Attributes:
        channels: Number of attention maps per phrase that it reads.
        base_width: Number of channels of its first stage.
        depth: Number of stages.
        parameters: Number of weights.
        layers: Layers whose attention it reads; None for all.
        heads: Heads that it reads; None for all.
    """

    channels: int
    base_width: int
    depth: int
    parameters: int
    layers: LayerChoice
    heads: tuple[int, ...] | None


@dataclass(frozen=True)
class ModelReport:
    """A backbone, loaded or built without weights.

    Attributes:
        info: Info of the adapter.
        alias: Name of the embedded checkpoint; None for any other checkpoint.
        channels: Number of attention maps per phrase, the input channels of a decoder.
        parameters: Number of weights of the model, tied ones counted once; None for an adapter without `model`.
        published: Whether it was built from its published configuration, without loading weights.
        forward: The sequence of an image and text; None for an adapter without a transformers model.
        decoder_parameters: Number of weights of a mask decoder of the usual size for these channels.
        decoder: The decoder that comes with the checkpoint; None without one.
        plugin: Entry point of the plugin that offers the adapter; None for an adapter that no plugin offers.
        distribution: Distribution that installed the plugin.
        version: Version of the distribution.
        checkpoints: Hub ids of the checkpoints that the adapter supports.
        fit: What grounding takes on a device; None where that was not asked for.
    """

    info: BackboneInfo
    alias: str | None
    channels: int
    parameters: int | None
    published: bool
    forward: ForwardReport | None
    decoder_parameters: int
    decoder: DecoderReport | None
    plugin: str | None
    distribution: str | None
    version: str | None
    checkpoints: tuple[str, ...]
    fit: FitReport | None = None


def describe(adapter: BackboneAdapter, trial: Trial | None = None, *, published: bool = False) -> ModelReport:
    """Report the sizes that a consumer of an adapter needs.

    Args:
        adapter: Any adapter; its model may be on the meta device.
        trial: Image and text for which sizes are reported.
        published: Whether the adapter was built from its published configuration.

    Raises:
        ImageError: The adapter takes no image of the trial's size.
        CheckpointError: The decoder beside the checkpoint cannot be read.
        DecoderError: The decoder does not fit the backbone.
        BackboneError: The config or the processor cannot be used.
    """
    with typed_errors(f"Describing {adapter.name}", BackboneError):
        return _report(adapter, trial or Trial(), published=published)


def _report(adapter: BackboneAdapter, trial: Trial, *, published: bool) -> ModelReport:
    info = adapter.info
    entry = next((entry for entry in list_adapters() if entry.name == adapter.name and not entry.broken), None)
    return ModelReport(
        info=info,
        alias=alias_of(info.checkpoint),
        channels=info.channels,
        parameters=_count(adapter.model) if isinstance(adapter, HasModel) else None,
        published=published,
        forward=_forward(adapter, trial) if isinstance(adapter, TransformersBackbone) else None,
        decoder_parameters=_decoder_parameters(info.channels),
        decoder=_decoder(adapter),
        plugin=entry.plugin if entry else None,
        distribution=entry.distribution if entry else None,
        version=entry.version if entry else None,
        checkpoints=entry.checkpoints if entry else (),
    )


def _forward(adapter: TransformersBackbone, trial: Trial) -> ForwardReport:
    (layouts,) = adapter.layouts([trial.image])
    image_tokens = sum(layout.token_count for layout in layouts)
    tokens = image_tokens + trial.text_tokens
    columns = sum(layout.cells[0] * layout.cells[1] for layout in layouts)
    memory, problem = None, None
    try:
        config = adapter.model.config.get_text_config(decoder=True)
        memory = pass_memory(config, tokens, trial.rows, columns, adapter.info.attention_layers)
    except (RuntimeError, ValueError, CaptureError) as error:
        problem = " ".join(str(error).split())[:300]
    return ForwardReport(
        trial=trial,
        grids=tuple(layout.cells for layout in sorted(layouts, key=lambda one: adapter.grid_names.index(one.name))),
        image_tokens=image_tokens,
        tokens=tokens,
        weight_bytes=_count(adapter.model) * DTYPE.itemsize,
        memory=memory,
        problem=problem,
    )


def _decoder_parameters(channels: int) -> int:
    with torch.device("meta"):
        return _count(UNet(UNetConfig(channels)))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _decoder(adapter: BackboneAdapter) -> DecoderReport | None:
    folder = Path(adapter.info.checkpoint, EMBEDDED_FOLDER)
    if not adapter.info.checkpoint or not (folder / CONFIG_FILE).is_file():
        return None
    decoder, config = MaskDecoder.load(folder, adapter.info), DecoderConfig.read(folder / CONFIG_FILE).unet
    request = decoder.request.grids
    return DecoderReport(
        channels=config.channels,
        base_width=config.base_width,
        depth=config.depth,
        parameters=_count(decoder),
        layers=request.layers,
        heads=None if request.heads is None else tuple(request.heads),
    )
