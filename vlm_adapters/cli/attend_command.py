"""`adapters attend`: where the words of a sentence look."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from PIL import Image

    from vlm_adapters.backbone.grids import Grids


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

    Needs no decoder. Writes a PNG per phrase and attention.json to --out. Without --phrase the whole text is one.
    """
    from vlm_adapters.backbone.request import GridRequest
    from vlm_adapters.data.files import write_json
    from vlm_adapters.heads.ranking import rank_heads
    from vlm_adapters.output.figures import heat_sheet
    from vlm_adapters.output.render import write_png
    from vlm_adapters.prompt import Prompt
    from vlm_adapters.registry.loading import load_adapter

    prompt = Prompt.describe(image, text, phrases_of(text, phrase, span))
    adapter = load_adapter(
        model, device=device, dtype=dtype, attn_implementation=attn_implementation, quantization_config=quantization
    )
    report: list[dict[str, Any]] = []
    for grids in adapter.extract(adapter.preprocess([prompt]), GridRequest())[0]:
        for index, words in enumerate(prompt.phrases):
            best = rank_heads(grids, index, heads)
            file = out / f"phrase_{index:02d}_{grids.grid.shape[0]}x{grids.grid.shape[1]}.png"
            rows = [
                (f"{words.text}: mean of all heads, by layer", _by_layer(grids, index, prompt.images[0])),
                (
                    f"{words.text}: sharpest heads",
                    [
                        (
                            f"layer {head.layer} head {head.head}",
                            _placed(grids, index, prompt.images[0], head.layer, head.head),
                        )
                        for head in best
                    ],
                ),
            ]
            write_png(heat_sheet(prompt.images[0], rows), file)
            report.append({"phrase": words.text, "file": str(file), "sharpest": [asdict(head) for head in best]})
    whole = {"text": text, "phrases": report}
    write_json(out / "attention.json", whole)
    if as_json:
        typer.echo(json.dumps(whole))
        return
    for entry in report:
        heads_told = ", ".join(f"{head['layer']}.{head['head']}" for head in entry["sharpest"])
        typer.echo(f"{entry['phrase']}: sharpest heads (layer.head) {heads_told}\n  {entry['file']}")


def _by_layer(grids: Grids, phrase: int, image: Image.Image) -> list[tuple[str, Any]]:
    return [(f"layer {layer}", _placed(grids, phrase, image, layer, None)) for layer in grids.layers]


def _placed(grids: Grids, phrase: int, image: Image.Image, layer: int, head: int | None) -> Any:
    """One map at the image's size, its peak 1."""
    from vlm_adapters.geometry import place_map

    maps = grids.attention[phrase, grids.layers.index(layer)]
    chosen = maps.mean(0) if head is None else maps[grids.heads.index(head)]
    placed = place_map(chosen, grids.grid.box, (image.height, image.width)).cpu().numpy()
    return placed / max(float(placed.max()), 1e-12)
