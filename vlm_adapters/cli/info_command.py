"""`adapters info`: the sizes of a model, or the plugin of an adapter."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vlm_adapters.cli.arguments import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    QuantizationOption,
    RevisionOption,
    byte_count,
    image_size,
)
from vlm_adapters.cli.completion import model_and_adapter_names
from vlm_adapters.cli.fit_table import print_fit
from vlm_adapters.cli.printing import line, print_json, stacked
from vlm_adapters.cli.tables import print_facts, shown, size
from vlm_adapters.errors import BackboneError, OptionError
from vlm_adapters.limits import shown as shown_value

if TYPE_CHECKING:
    from vlm_adapters.inspection.adapter import AdapterReport
    from vlm_adapters.inspection.model import ForwardReport, ModelReport, Trial


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Embedded model, checkpoint folder, hub id, or adapter.",
            show_default=False,
            autocompletion=model_and_adapter_names,
        ),
    ],
    *,
    image: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels of the image for which sizes are reported.")] = (
        "640x480"
    ),
    tokens_of_text: Annotated[int, typer.Option(help="Number of tokens of text beside the image's.", min=1)] = 64,
    rows: Annotated[int, typer.Option(help="Number of attention rows, each of one token of text.", min=1)] = 16,
    phrases: Annotated[
        int | None, typer.Option(help="Phrases to ground at once: show what that takes.", min=1, show_default=False)
    ] = None,
    device_memory: Annotated[
        str | None, typer.Option(help="Memory of a device, such as 24GiB: show whether grounding fits.")
    ] = None,
    decoder: Annotated[str | None, typer.Option(help="Folder or hub id of the decoder to ground with.")] = None,
    sam: Annotated[
        str | None, typer.Option(help="Refine with this model: vit_b, vit_l, vit_h, or a checkpoint file.")
    ] = None,
    revision: RevisionOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the sizes of MODEL, the tokens of an image, and memory.

    A hub id whose published configuration a plugin contains is built without
    its weights and without network; with --revision, --device, --dtype or another
    loading option the checkpoint itself is loaded. Everything else is loaded.
    For the name of an adapter (qwen2_5_vl) nothing is loaded; its plugin, state
    and checkpoints are shown.

    Memory is counted, not measured, for bfloat16: the weights of the whole model,
    and the peak of what one pass of the language model over the sequence makes
    (batch of one, no cache, no logits; its input and the recorded maps included).
    Not counted: the vision tower, what a kernel uses inside (the fused attention
    kernel counts as its output), and what an allocator keeps beyond that.
    """
    from vlm_adapters.inspection.adapter import describe_entry
    from vlm_adapters.inspection.model import Trial

    loading = {
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "quantization_config": quantization,
    }
    with redirect_stdout(sys.stderr):  # what a plugin prints must not spoil the JSON
        trial = Trial(image_size(image), tokens_of_text, rows)
        limit = None if device_memory is None else byte_count(device_memory)
        adapter = describe_entry(model)
        report: AdapterReport | ModelReport = adapter or (
            _described(model, trial, loading)
            if phrases is None and limit is None and decoder is None and sam is None
            else _planned(model, trial, Question(phrases or 1, limit, decoder, sam), loading)
        )
    if as_json:
        print_json(asdict(report), indent=2)
    elif adapter:
        _print_adapter(adapter)
    else:
        _print_model(cast("ModelReport", report))


@dataclass(frozen=True)
class Question:
    """What grounding is to be planned.

    Attributes:
        phrases: Number of phrases.
        device_memory: Bytes of the device; None to say only what grounding takes.
        decoder: Folder of the decoder; None for the checkpoint's, or one of the usual size.
        sam: Name or file of the Segment Anything model; None for none.
    """

    phrases: int
    device_memory: int | None
    decoder: str | None
    sam: str | None


def _described(model: str, trial: Trial, loading: dict[str, Any]) -> ModelReport:
    from vlm_adapters.inspection.model import describe
    from vlm_adapters.registry.loading import load_adapter, load_published

    if all(value in (None, "auto") for value in loading.values()) and (adapter := load_published(model)):
        return describe(adapter, trial, published=True)
    return describe(load_adapter(model, **loading), trial)


def _planned(model: str, trial: Trial, question: Question, loading: dict[str, Any]) -> ModelReport:
    from vlm_adapters.hf import TransformersBackbone
    from vlm_adapters.inspection.fit import Wish, fit, segment_anything
    from vlm_adapters.inspection.grounding_memory import Scene
    from vlm_adapters.inspection.model import describe
    from vlm_adapters.registry.load_options import dtype_name
    from vlm_adapters.registry.loading import load_adapter, load_published

    if (quantization := loading["quantization_config"]) not in (None, "int8", "nf4"):
        raise OptionError(f"Unknown quantization {shown_value(quantization)}. Use nf4 or int8.")
    dtype = None if loading["dtype"] == "auto" else dtype_name(loading["dtype"])
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise OptionError(f"Unknown dtype {shown_value(dtype)}. Use auto, float32, bfloat16 (bf16) or float16 (fp16).")
    wish = Wish(
        scene=Scene(trial.image, question.phrases),
        device_memory=question.device_memory,
        dtype=dtype,
        quantization=quantization,
        decoder=question.decoder,
        sam=None if question.sam is None else segment_anything(question.sam),
    )
    published = load_published(model) if loading["revision"] is None else None
    # Of other checkpoints the weights are left where they are.
    adapter = published or load_adapter(model, revision=loading["revision"], device_map={"": "meta"}, dtype="bfloat16")
    if not isinstance(adapter, TransformersBackbone):
        raise BackboneError(f"What {model} takes cannot be counted: its adapter is not over a model of transformers.")
    return replace(describe(adapter, trial, published=published is not None), fit=fit(adapter, wish))


def _print_adapter(report: AdapterReport) -> None:
    line(f"{report.name}, an adapter", style="bold")
    print_facts(
        "Plugin",
        [
            ("plugin", report.plugin),
            ("distribution", _distribution(report)),
            ("state", report.state),
            ("class", report.target),
        ],
    )
    print_facts("Checkpoints", [("supports", _checkpoints(report)), ("embedded", report.embedded)])


_SHARED = {
    "beginning": "the image and the text before theirs run once",
    "image features": "the vision tower runs once, the language model over every text and the image",
    "nothing": "each runs by itself",
}
"""What prompts about one image compute once, by `BackboneInfo.shared`."""


def _print_model(report: ModelReport) -> None:
    info = report.info
    line(f"{report.alias or info.checkpoint}, model type {info.model_type}", style="bold")
    if report.published:
        line("published configuration; no weights loaded", style="yellow")
    if report.fit:
        print_fit(report.fit)
        return
    print_facts(
        "Backbone",
        [
            *([("folder", info.checkpoint)] if report.alias else []),
            *([("revision", info.revision)] if info.revision else []),
            ("parameters", report.parameters),
            ("layers", info.num_layers),
            ("with attention", _layers(info.attention_layers, info.num_layers)),
            ("heads", info.num_heads),
            ("width", info.hidden_size),
            ("cell", f"{size(info.cell)} pixels of the resized image, per image token"),
            ("grids", ", ".join(info.grids) or "none: image tokens have no places"),
            ("texts on one image", _SHARED[info.shared]),
        ],
    )
    print_facts("Options of load_adapter", report.info.options) if report.info.options else None
    if forward := report.forward:
        trial = forward.trial
        title = f"An image of {size(trial.image)} pixels and {shown(trial.text_tokens)} tokens of text"
        print_facts(title, _sequence(forward))
        print_facts("Memory in bfloat16", _memory(forward))
    print_facts("Mask decoder", _mask_decoder(report))
    print_facts(
        "Adapter",
        [
            ("plugin", report.plugin),
            ("distribution", _distribution(report)),
            ("supports", _checkpoints(report)),
        ],
    )


def _checkpoints(report: AdapterReport | ModelReport) -> object:
    return stacked(report.checkpoints) if report.checkpoints else None


def _layers(with_attention: tuple[int, ...], total: int) -> str:
    return "all" if with_attention == tuple(range(total)) else shown(with_attention)


def _channels(report: ModelReport) -> str:
    info = report.info
    parts = [f"{len(info.attention_layers)} layers", f"{info.num_heads} heads"]
    parts += [f"{len(info.grids)} grids"] if len(info.grids) > 1 else []
    return f"{report.channels:,} = {' x '.join(parts)}"


def _sequence(forward: ForwardReport) -> list[tuple[str, object]]:
    return [
        ("grids", ", ".join(size(cells) for cells in forward.grids)),
        ("image tokens", forward.image_tokens),
        ("sequence", f"{forward.tokens:,} tokens"),
    ]


def _memory(forward: ForwardReport) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [("weights", _mebibytes(forward.weight_bytes))]
    if memory := forward.memory:
        return [
            *facts,
            ("one pass", f"{_mebibytes(memory.plain)}, beside the weights"),
            ("with rows", f"{_mebibytes(memory.rows)}, {shown(forward.trial.rows)} rows of every layer recorded"),
            ("with states", f"{_mebibytes(memory.states)}, also the hidden states of these tokens after every layer"),
            ("eager", f"{_mebibytes(memory.eager)}, with output_attentions=True"),
        ]
    return [*facts, ("one pass", f"cannot be counted: {forward.problem}")]


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _mask_decoder(report: ModelReport) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("channels", _channels(report)),
        ("usual size", f"{report.decoder_parameters:,} parameters"),
    ]
    if (decoder := report.decoder) is None:
        return [*facts, ("trained", "none comes with this checkpoint")]
    reads = [f"{decoder.channels:,} channels"]
    reads += [f"layers {shown(decoder.layers)}"] if decoder.layers is not None else []
    reads += [f"heads {shown(decoder.heads)}"] if decoder.heads is not None else []
    return [
        *facts,
        ("trained", "one comes with this checkpoint"),
        ("reads", ", ".join(reads)),
        ("stages", f"{decoder.depth}, the first {decoder.base_width} channels wide"),
        ("its parameters", decoder.parameters),
    ]


def _distribution(report: AdapterReport | ModelReport) -> str | None:
    return f"{report.distribution} {report.version}" if report.distribution else None
