"""`adapters extract`: attention maps and hidden states of many images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OutOption,
    PhraseOption,
    QuantizationOption,
    SpanOption,
)
from vlm_adapters.cli.bulk import BatchSizeOption, ManyImages, ShardSizeOption, ThreadsOption, prompts_of
from vlm_adapters.errors import OptionError


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder of images, a JSONL file, a data set, or one image.", show_default=False
        ),
    ],
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="The sentence for all images.", show_default=False)
    ] = None,
    *,
    phrase: PhraseOption = None,
    span: SpanOption = None,
    model: ModelOption = DEFAULT_MODEL,
    layers: Annotated[str, typer.Option(help="Layers whose attention is kept: all, none, or 0,8,-1.")] = "all",
    heads: Annotated[str, typer.Option(help="Heads of these layers: all, or 0,3.")] = "all",
    hidden_layers: Annotated[
        str, typer.Option(help="Layers whose hidden states of the image's tokens are kept, likewise.")
    ] = "none",
    phrase_hidden_layers: Annotated[
        str, typer.Option(help="Layers whose hidden states of the phrases' tokens are kept, likewise.")
    ] = "none",
    align: Annotated[
        Literal["token", "predictor"], typer.Option(help="Rows of a phrase: of its tokens, or of those before.")
    ] = "token",
    reduce: Annotated[
        Literal["mean", "max", "last", "none"], typer.Option(help="What its rows become; none keeps them.")
    ] = "mean",
    save_dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Precision of what is written.")
    ] = "float32",
    batch_size: BatchSizeOption = 8,
    shard_size: ShardSizeOption = 64,
    threads: ThreadsOption = 1,
    out: OutOption = Path("extracted"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Extract the attention of the phrases and hidden states of every image in SOURCE.

    Writes to --out: manifest.json (what is computed), shards of safetensors with a
    manifest each, and at last index.json, which names the images that failed.
    The same command resumes a run that was interrupted, with the same bytes. A
    folder needs TEXT, or --hidden-layers alone; lines of a JSONL file and samples
    of a data set have their own texts. Without --phrase the text is one phrase.

    On several GPUs: accelerate launch -m vlm_adapters extract ...
    """
    from vlm_adapters.backbone.request import GridRequest
    from vlm_adapters.bulk import Extract

    request = GridRequest(
        layers=_indices("--layers", layers),
        heads=_indices("--heads", heads),
        hidden_layers=_indices("--hidden-layers", hidden_layers),
        phrase_hidden_layers=_indices("--phrase-hidden-layers", phrase_hidden_layers),
        align=align,
        reduce=reduce,
    )
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "quantization_config": quantization}
    many = ManyImages(prompts_of(source, text, phrase, span), out, batch_size, shard_size, threads)
    if request.hidden_layers == () and not many.source.has_text:
        raise OptionError("There is nothing to extract: no TEXT, and no hidden states. Give TEXT, or --hidden-layers.")
    many.run(
        lambda found: Extract(model, request=request, save_dtype=save_dtype, device=found, **options),
        device,
        as_json=as_json,
    )


def _indices(option: str, choice: str) -> list[int] | None:
    if choice in ("all", "none"):
        return None if choice == "all" else []
    try:
        return [int(number) for number in choice.split(",")]
    except ValueError as error:
        raise OptionError(f"{option} {choice!r} is not all, none, or numbers with commas, such as 0,8,-1.") from error
