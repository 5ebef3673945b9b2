"""`adapters attend`: where the phrases of a sentence look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    ImageFile,
    JsonOption,
    OutOption,
    PhraseOption,
    QuantizationOption,
    SpanOption,
    Text,
    phrases_of,
)
from vlm_adapters.cli.printing import line, print_json, working


def command(
    image: ImageFile,
    text: Text,
    *,
    phrase: PhraseOption = None,
    span: SpanOption = None,
    model: Annotated[str, typer.Option(help="Embedded model, checkpoint folder or hub id.")] = DEFAULT_MODEL,
    heads: Annotated[int, typer.Option(help="How many of the sharpest heads to show.", min=1)] = 6,
    out: OutOption = Path("attention"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the phrases of TEXT look in IMAGE: heat maps per layer and of the sharpest heads.

    Needs no decoder. Writes a PNG per phrase and grid to --out, and at last attention.json, which names them; sheets of
    an earlier run in --out are removed. Without --phrase the text is one phrase.
    """
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.output.attention import write_attention
    from vlm_adapters.prompt import Prompt
    from vlm_adapters.registry.loading import load_adapter

    prompt = Prompt.describe(image, text, phrases_of(text, phrase, span))  # before the model: mistakes show at once
    with locked_folder(out):
        with working(f"Loading {model} ..."):
            adapter = load_adapter(
                model,
                device=device,
                dtype=dtype,
                attn_implementation=attn_implementation,
                quantization_config=quantization,
            )
        with working(f"Drawing {len(prompt.phrases)} phrases, into {out} ..."):
            report = write_attention(adapter, prompt, out, heads=heads)
    if as_json:
        print_json(report)
        return
    for found in report["phrases"]:
        heads_text = ", ".join(f"{head['layer']}.{head['head']}" for head in found["sharpest"])
        line(f"{found['phrase']}: sharpest heads (layer.head) {heads_text}")
        line(f"  {found['file']}")
