"""`adapters ground`: masks for the phrases of a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

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
    from vlm_adapters.grounding.result import Grounding


def command(
    image: ImageFile,
    text: Text,
    *,
    phrase: PhraseOption = None,
    span: SpanOption = None,
    model: Annotated[
        str, typer.Option(help="Embedded model, decoder's folder, checkpoint folder or hub id.")
    ] = DEFAULT_MODEL,
    method: Annotated[str, typer.Option(help="auto, decoder, box or heads.")] = "auto",
    profile: Annotated[Path | None, typer.Option(help="Head profile, from `adapters calibrate`.")] = None,
    sam: Annotated[Path | None, typer.Option(help="Checkpoint of Segment Anything that refines the masks.")] = None,
    out: OutOption = Path("grounding"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ground the phrases of TEXT in IMAGE and write masks.

    Writes to --out: overlay.png, figure.png, one PNG per mask, masks.png (all masks, indexed), grounding.json (COCO
    RLE, box, score) and coco.json (COCO results). Without --phrase the whole text is one phrase.

    A model without a decoder gives masks by its own boxes, if its adapter declares that it can point, else by the
    attention of a few heads: those of its profile, or, where it has none, of one made on the spot.
    """
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.output.exports import grounding_to_dict
    from vlm_adapters.prompt import Prompt

    prompt = Prompt.describe(image, text, phrases_of(text, phrase, span))  # before the model: mistakes show at once
    grounder = load_grounder(
        model,
        method=method,
        profile=profile,
        sam=sam,
        device=device,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantization_config=quantization,
    )
    grounding = grounder.ground_all([prompt])[0]
    files = write_grounding(grounding, out, image_id=Path(image).stem)
    if as_json:
        typer.echo(json.dumps({"files": [str(file) for file in files], **grounding_to_dict(grounding)}))
    else:
        typer.echo(f"method: {grounder.description}")
        print_grounding(grounding, files)


def write_grounding(grounding: Grounding, out: Path, image_id: str) -> list[Path]:
    """Write overlay, figure, masks and JSON; give their paths."""
    from PIL import Image

    from vlm_adapters.data.files import write_json
    from vlm_adapters.output.exports import coco_results, grounding_to_dict, indexed_image
    from vlm_adapters.output.figures import grounding_figure
    from vlm_adapters.output.render import grounding_overlay, write_png

    images = {"overlay.png": grounding_overlay(grounding), "figure.png": grounding_figure(grounding)}
    for index, grounded in enumerate(grounding.phrases):
        images[f"mask_{index:02d}.png"] = Image.fromarray(grounded.mask)
    images["masks.png"] = indexed_image(grounding)
    for name, image in images.items():
        write_png(image, out / name)
    write_json(out / "grounding.json", grounding_to_dict(grounding))
    write_json(out / "coco.json", coco_results(grounding, image_id))
    return [out / name for name in (*images, "grounding.json", "coco.json")]


def print_grounding(grounding: Grounding, files: list[Path], ious: list[float] | None = None) -> None:
    """Print a row per phrase, then where the files are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("phrase", "score", "box", *(["IoU"] if ious else [])):
        table.add_column(heading, overflow="fold")
    for index, grounded in enumerate(grounding.phrases):
        box = " ".join(map(str, grounded.box)) if grounded.box else "nothing found"
        row = [grounded.phrase.text, f"{grounded.score:.2f}", box]
        table.add_row(*row, *([f"{ious[index]:.2f}"] if ious else []))
    console = Console()
    console.print(table)
    for file in files:
        console.print(str(file), style="dim", highlight=False, soft_wrap=True)
