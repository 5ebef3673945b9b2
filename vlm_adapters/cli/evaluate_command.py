"""`adapters evaluate`: how good the masks of a model are on a data set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vlm_adapters.cli.arguments import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    OutOption,
    QuantizationOption,
)
from vlm_adapters.cli.tables import print_rows

if TYPE_CHECKING:
    from vlm_adapters.evaluation.card import Card
    from vlm_adapters.evaluation.fingerprint import Settings
    from vlm_adapters.evaluation.partial_results import Parts
    from vlm_adapters.evaluation.process import Process
    from vlm_adapters.evaluation.run import Evaluation


def command(
    model: Annotated[
        str, typer.Argument(help="Embedded model, decoder's folder, checkpoint folder or hub id.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="Such as scenes:count=500,seed=4, a folder in the plain form, or a YAML file.", show_default=False
        ),
    ],
    *,
    protocol: Annotated[
        str,
        typer.Option(
            help="isolated: every phrase's words alone; packed: the whole text of a sample.", show_default=False
        ),
    ],
    sentences: Annotated[
        str | None, typer.Option(help="all or first, for data sets with several sentences for a thing.")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, decoder, box or heads.")] = "auto",
    profile: Annotated[Path | None, typer.Option(help="Head profile, from `adapters calibrate`.")] = None,
    sam: Annotated[Path | None, typer.Option(help="Checkpoint of Segment Anything that refines the masks.")] = None,
    batch: Annotated[int, typer.Option(help="Prompts that are computed at once.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the intervals and of the cases shown at random.", min=0)] = 0,
    out: OutOption = Path("evaluation"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the masks of MODEL on DATA.

    Writes to --out: records.jsonl (one line per phrase, from which all numbers
    come), card.json and card.md (what was run, and the table), gallery.html
    (best, worst and random cases). A run that was stopped goes on where it was
    if it is started again.

    On several GPUs: accelerate launch $(which adapters) evaluate ...
    """
    from vlm_adapters.evaluation.fingerprint import Settings
    from vlm_adapters.evaluation.process import Process

    settings = Settings(
        model=model,
        data=data,
        protocol=protocol,
        sentences=sentences,
        method=method,
        profile=None if profile is None else str(profile),
        sam=None if sam is None else str(sam),
        device=device,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantization=quantization,
        batch=batch,
        seed=seed,
    )
    card = _run(settings, Process.this(device), out)
    if card and as_json:
        typer.echo(json.dumps(asdict(card)))
    elif card:
        _print(card, out)


def _run(settings: Settings, process: Process, out: Path) -> Card | None:
    """Do this process's share; the first process then waits for the others and writes everything."""
    from vlm_adapters.evaluation.card import Card, Outcome
    from vlm_adapters.evaluation.fingerprint import Pins
    from vlm_adapters.evaluation.partial_results import Parts, merge
    from vlm_adapters.evaluation.protocols import open_asked
    from vlm_adapters.evaluation.record import write_records
    from vlm_adapters.evaluation.run import Evaluation
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.output.gallery import write_gallery

    dataset = open_asked(
        settings.data, settings.protocol, settings.sentences
    )  # before the model: mistakes show at once
    grounder = load_grounder(
        settings.model,
        method=settings.method,
        profile=settings.profile,
        sam=settings.sam,
        device=process.device,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        quantization_config=settings.quantization,
    )
    pins = Pins.of(settings, grounder, dataset)
    parts = Parts(out / "parts", pins)
    _compute(Evaluation(grounder, dataset, settings.protocol, settings.batch), parts, process)
    process.finish()
    if process.index:
        return None
    records, skipped = merge(parts.done(), len(dataset))
    card = Card.of(settings, pins, Outcome(records, tuple(skipped), len(dataset.problems)), processes=process.count)
    write_records(records, out / "records.jsonl")
    card.write(out)
    write_gallery(records, dataset, out, seed=settings.seed)
    return card


def _compute(evaluation: Evaluation, parts: Parts, process: Process) -> None:
    """Compute what is left of this process's share; the first process shows how far its own is."""
    share = [number for number in evaluation.numbers if number % process.count == process.index]
    samples = {number: len(evaluation.indices(number)) for number in share}
    done = parts.done()
    left = [number for number in share if number not in done]
    console = Console(stderr=True, quiet=process.index > 0)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        name = "samples" if process.count == 1 else f"samples of process 1 of {process.count}"
        before = sum(samples.values()) - sum(samples[number] for number in left)
        task = bar.add_task(name, total=sum(samples.values()), completed=before)
        for place, batch in enumerate(parts.append(process.index, map(evaluation.batch, left))):
            bar.advance(task, samples[batch.number])
            if not console.is_terminal and place % max(len(left) // 10, 1) == 0:
                console.print(bar.get_renderable())  # where nobody watches a bar, a line now and then


class _Rate(ProgressColumn):
    """Samples per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} a second, left:")


def _print(card: Card, out: Path) -> None:
    """Print the method, the numbers, and where the files are."""
    from vlm_adapters.evaluation.card import shown

    console = Console()
    pins = card.pins
    console.print(f"method: {pins.method}", highlight=False, soft_wrap=True)
    told = f"{pins.protocol}, {card.samples:,} samples, {card.images:,} images, {card.phrases:,} phrases"
    console.print(f"{told}, {len(card.skipped):,} skipped, {card.left_out:,} left out", highlight=False, soft_wrap=True)
    if not card.numbers:
        return
    print_rows(console, "All phrases", ["", *card.masks], card.rows("all"))
    tags = [group for group in card.groups if group != "all"]
    rows = [
        (
            tag,
            card.number(tag, card.masks[0], "mIoU").phrases,
            *(shown(card.number(tag, each, "mIoU")) for each in card.masks),
        )
        for tag in tags
    ]
    print_rows(console, "Average recall (mean IoU) by tag", ["", "phrases", *card.masks], rows, ["phrases"])
    console.print(f"\nIn brackets: {card.interval}.", style="dim", highlight=False)
    for name in ("records.jsonl", "card.json", "card.md", "gallery.html"):
        console.print(str(out / name), style="dim", highlight=False, soft_wrap=True)
