"""`adapters attend`: where the phrases of a sentence look."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

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

    Needs no decoder. Writes a PNG per phrase and attention.json to --out. Without --phrase the text is one phrase.
    """
    from vlm_adapters.backbone.request import GridRequest
    from vlm_adapters.data.files import write_json
    from vlm_adapters.heads.ranking import rank_heads
    from vlm_adapters.output.attention import attention_sheet
    from vlm_adapters.output.render import write_png
    from vlm_adapters.prompt import Prompt
    from vlm_adapters.registry.loading import load_adapter

    prompt = Prompt.describe(image, text, phrases_of(text, phrase, span))
    adapter = load_adapter(
        model, device=device, dtype=dtype, attn_implementation=attn_implementation, quantization_config=quantization
    )
    phrases: list[dict[str, Any]] = []
    for grids in adapter.extract(adapter.preprocess([prompt]), GridRequest())[0]:
        for index, words in enumerate(prompt.phrases):
            sharpest = rank_heads(grids, index, heads)
            file = out / f"phrase_{index:02d}_{grids.grid.shape[0]}x{grids.grid.shape[1]}.png"
            write_png(attention_sheet(prompt, grids, index, sharpest), file)
            phrases.append({"phrase": words.text, "file": str(file), "sharpest": [asdict(head) for head in sharpest]})
    report = {"text": text, "phrases": phrases}
    write_json(out / "attention.json", report)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for phrase_report in phrases:
        heads_text = ", ".join(f"{head['layer']}.{head['head']}" for head in phrase_report["sharpest"])
        typer.echo(f"{phrase_report['phrase']}: sharpest heads (layer.head) {heads_text}\n  {phrase_report['file']}")
