"""`adapters info`: what a consumer must know of a model, or what is known of an adapter."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

from vlm_adapters.cli.arguments import DeviceOption, DtypeOption, JsonOption
from vlm_adapters.cli.tables import print_facts, shown, size

if TYPE_CHECKING:
    from vlm_adapters.probe.entry import AdapterReport
    from vlm_adapters.probe.model import DecoderReport, ModelReport


def command(
    model: Annotated[
        str, typer.Argument(help="Embedded model, checkpoint folder, hub id, or adapter.", show_default=False)
    ],
    *,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show what MODEL offers a decoder and what it was made for.

    A model is loaded: its layers, heads, channels, options, and the decoder that
    comes with it. For the name of an adapter (qwen2_5_vl) nothing is loaded: its
    plugin, state and checkpoints.
    """
    from vlm_adapters.probe.entry import describe_entry

    with redirect_stdout(sys.stderr):  # what a plugin prints must not spoil the JSON
        adapter = describe_entry(model)
        report = adapter or _loaded(model, revision, device, dtype)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    elif adapter:
        _print_adapter(adapter, Console())
    else:
        _print_model(cast("ModelReport", report), Console())


def _loaded(model: str, revision: str | None, device: str, dtype: str) -> ModelReport:
    from vlm_adapters.loading import load_adapter
    from vlm_adapters.probe.model import describe

    return describe(load_adapter(model, device=device, dtype=dtype, revision=revision))


def _print_adapter(report: AdapterReport, console: Console) -> None:
    console.print(Text(f"{report.name}, an adapter", style="bold"))
    print_facts(
        console,
        "Plugin",
        [
            ("plugin", report.plugin),
            ("distribution", _distribution(report)),
            ("state", report.state),
            ("class", report.target),
        ],
    )
    print_facts(
        console, "Checkpoints", [("meant for", "\n".join(report.checkpoints) or None), ("embedded", report.embedded)]
    )


def _print_model(report: ModelReport, console: Console) -> None:
    info = report.info
    console.print(
        Text(f"{report.alias or info.checkpoint}, model type {info.model_type}", style="bold"), soft_wrap=True
    )
    print_facts(
        console,
        "Backbone",
        [
            *([("folder", info.checkpoint)] if report.alias else []),
            *([("revision", info.revision)] if info.revision else []),
            ("parameters", report.parameters),
            ("layers", info.num_layers),
            ("with attention", _layers(info.attention_layers, info.num_layers)),
            ("heads", info.num_heads),
            ("width", info.hidden_size),
            ("cell", f"{size(info.cell)} pixels of the resized picture, per image token"),
            ("grids", f"{info.grids_per_picture} per picture"),
        ],
    )
    print_facts(console, "Options of load_adapter", report.info.options) if report.info.options else None
    print_facts(console, "Mask decoder", [("channels", _channels(report)), *_decoder(report.decoder)])
    print_facts(
        console,
        "Adapter",
        [
            ("plugin", report.plugin),
            ("distribution", _distribution(report)),
            ("meant for", "\n".join(report.checkpoints) or None),
        ],
    )


def _layers(with_attention: tuple[int, ...], total: int) -> str:
    return "all" if with_attention == tuple(range(total)) else shown(with_attention)


def _channels(report: ModelReport) -> str:
    info = report.info
    parts = [f"{len(info.attention_layers)} layers", f"{info.num_heads} heads"]
    parts += [f"{info.grids_per_picture} grids"] if info.grids_per_picture > 1 else []
    return f"{report.channels:,} = {' x '.join(parts)}"


def _decoder(decoder: DecoderReport | None) -> list[tuple[str, object]]:
    if decoder is None:
        return [("trained", "none comes with this checkpoint")]
    reads = [f"{decoder.channels:,} channels"]
    reads += [f"layers {shown(decoder.layers)}"] if decoder.layers is not None else []
    reads += [f"heads {shown(decoder.heads)}"] if decoder.heads is not None else []
    return [
        ("trained", "one comes with this checkpoint"),
        ("reads", ", ".join(reads)),
        ("stages", f"{decoder.depth}, the first {decoder.base_width} channels wide"),
        ("its parameters", decoder.parameters),
    ]


def _distribution(report: AdapterReport | ModelReport) -> str | None:
    return f"{report.distribution} {report.version}" if report.distribution else None
