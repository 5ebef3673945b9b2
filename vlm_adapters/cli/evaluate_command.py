"""`adapters evaluate`: measures the masks of a model on a data set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlm_adapters.cli.arguments import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    MethodOption,
    OutOption,
    ProfileOption,
    QuantizationOption,
    SamOption,
)
from vlm_adapters.cli.completion import model_names
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.cli.progress import ShareBar
from vlm_adapters.cli.tables import print_rows

if TYPE_CHECKING:
    from vlm_adapters.evaluation.card import Card


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Embedded model, decoder's folder, checkpoint folder or hub id.",
            show_default=False,
            autocompletion=model_names,
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A data set: scenes:count=500,seed=4, a folder in the plain form, or a YAML file.",
            show_default=False,
        ),
    ],
    *,
    protocol: Annotated[
        Literal["isolated", "packed"],
        typer.Option(
            help="isolated: the words of each phrase alone; packed: the full text of a sample.", show_default=False
        ),
    ],
    sentences: Annotated[
        Literal["all", "first"] | None,
        typer.Option(help="For data sets with several sentences per object.", show_default=False),
    ] = None,
    method: MethodOption = "auto",
    profile: ProfileOption = None,
    sam: SamOption = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", help="Prompts that are computed at once.", min=1)
    ] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the intervals and of the random cases.", min=0)] = 0,
    out: OutOption = Path("evaluation"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the masks of MODEL on DATA.

    Writes to --out: records.jsonl (one line per phrase, from which all numbers
    are computed), card.json and card.md (what was run, and the numbers),
    gallery.html (one page: the numbers, and random, worst and best cases). The same command resumes a run
    that was interrupted.

    On several GPUs: accelerate launch $(which adapters) evaluate ...
    """
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.evaluation.fingerprint import EvaluationSettings
    from vlm_adapters.evaluation.process import Process
    from vlm_adapters.evaluation.protocols import open_for_protocol
    from vlm_adapters.evaluation.record import read_records
    from vlm_adapters.evaluation.run import RECORDS_FILE, SUBFOLDERS, evaluate
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.output.gallery import write_gallery

    options: dict[str, object] = {"protocol": protocol, "sentences": sentences, "method": method}
    options |= {"profile": profile, "sam": sam, "device": device, "dtype": dtype}
    options |= {"attn_implementation": attn_implementation, "quantization": quantization}
    options |= {"batch_size": batch_size, "seed": seed}
    settings = EvaluationSettings(
        protocol=protocol,
        batch_size=batch_size,
        seed=seed,
        model=model,
        attn_implementation=attn_implementation,
        quantization=quantization,
        command=command_line(model, data, options),
    )
    process = Process.this(device)
    dataset = open_for_protocol(data, protocol, sentences)  # before the model: mistakes show at once
    with locked_folder(out, *SUBFOLDERS) if process.index == 0 else nullcontext():
        grounder = load_grounder(
            model,
            method=method,
            profile=profile,
            sam=sam,
            device=process.device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization_config=quantization,
        )
        with ShareBar(process) as bar:
            card = evaluate(grounder, dataset, settings, out, process=process, report=bar.show)
        if process.index:
            return
        write_gallery(read_records(out / RECORDS_FILE), dataset, out, card=card, seed=seed)
    if as_json:
        print_json(asdict(card))
    else:
        _print(card, out)


def command_line(model: str, data: str, options: Mapping[str, object]) -> str:
    """The command line that repeats a run, without the folder that it writes to."""
    words = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    return shlex.join(["adapters", "evaluate", model, data, *words])


def _print(card: Card, out: Path) -> None:
    """Print the method, the numbers, and where the files are."""
    from vlm_adapters.evaluation.card import format_number

    line(f"method: {card.fingerprint.method}")
    counts = f"{card.samples:,} samples, {card.images:,} images, {card.phrases:,} phrases"
    line(f"{card.fingerprint.protocol}, {counts}, {len(card.skipped):,} skipped, {card.left_out:,} left out")
    if not card.numbers:
        return
    print_rows("All phrases", ["", *card.masks], card.rows("all"))
    rows = [
        (
            tag,
            card.number(tag, card.masks[0], "mIoU").phrases,
            *(format_number(card.number(tag, masks, "mIoU")) for masks in card.masks),
        )
        for tag in card.groups
        if tag != "all"
    ]
    print_rows("Average recall (mean IoU) by tag", ["", "phrases", *card.masks], rows, ["phrases"])
    line()
    line(f"In brackets: {card.interval}.", style="dim")
    for name in ("records.jsonl", "card.json", "card.md", "gallery.html"):
        line(str(out / name), style="dim")
