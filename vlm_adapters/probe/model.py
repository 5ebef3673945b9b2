"""What a consumer of an adapter must know before it builds anything on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vlm_adapters.backbone import BackboneAdapter, BackboneInfo
from vlm_adapters.decoder.grounder import CONFIG_FILE, EMBEDDED_FOLDER, GroundedVLM
from vlm_adapters.embedded import alias_of
from vlm_adapters.registry import list_adapters
from vlm_adapters.request import LayerChoice


@dataclass(frozen=True)
class DecoderReport:
    """The mask decoder that a checkpoint brings.

    Attributes:
        channels: Attention maps per phrase that it reads.
        base_width: Channels of its first stage.
        depth: Its stages.
        parameters: Weights in all.
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
    """A loaded backbone.

    Attributes:
        info: What the adapter tells of itself.
        alias: Name of the embedded checkpoint, where it is one.
        channels: Attention maps per phrase, which size a decoder.
        parameters: Weights of the model, tied ones counted once; None where the adapter shows no model.
        decoder: The decoder that the checkpoint brings; None where it brings none.
        plugin: Entry point of the plugin that offers the adapter; None for an adapter that no plugin offers.
        distribution: Distribution that installed the plugin.
        version: Its version.
        checkpoints: Hub ids of the checkpoints that the adapter is meant for.
    """

    info: BackboneInfo
    alias: str | None
    channels: int
    parameters: int | None
    decoder: DecoderReport | None
    plugin: str | None
    distribution: str | None
    version: str | None
    checkpoints: tuple[str, ...]


def describe(adapter: BackboneAdapter) -> ModelReport:
    """Report what a consumer of a loaded adapter needs to size itself.

    Raises:
        CheckpointError: The decoder beside the checkpoint cannot be read.
        DecoderError: It does not fit the backbone.
    """
    info, model = adapter.info, getattr(adapter, "model", None)
    entry = next((entry for entry in list_adapters() if entry.name == adapter.name and not entry.broken), None)
    return ModelReport(
        info=info,
        alias=alias_of(info.checkpoint),
        channels=info.channels,
        parameters=_count(model) if isinstance(model, nn.Module) else None,
        decoder=_decoder(adapter),
        plugin=entry.plugin if entry else None,
        distribution=entry.distribution if entry else None,
        version=entry.version if entry else None,
        checkpoints=entry.checkpoints if entry else (),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _decoder(adapter: BackboneAdapter) -> DecoderReport | None:
    folder = Path(adapter.info.checkpoint, EMBEDDED_FOLDER)
    if not adapter.info.checkpoint or not (folder / CONFIG_FILE).is_file():
        return None
    grounded = GroundedVLM.from_pretrained(folder, adapter=adapter)
    config, request = grounded.decoder.config, grounded.request
    return DecoderReport(
        channels=config.channels,
        base_width=config.base_width,
        depth=config.depth,
        parameters=_count(grounded.decoder),
        layers=request.layers,
        heads=None if request.heads is None else tuple(request.heads),
    )
