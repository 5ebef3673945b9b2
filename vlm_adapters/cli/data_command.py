"""`adapters data`: what is in a data set, and its plain form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track

from vlm_adapters.cli.arguments import JsonOption
from vlm_adapters.cli.printing import console, line, print_json
from vlm_adapters.cli.tables import print_facts

if TYPE_CHECKING:
    from vlm_adapters.data.check import DataReport
    from vlm_adapters.data.dataset import Dataset

group = typer.Typer(name="data", add_completion=False)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder in the plain form, a .yaml file, or kind:key=value,key=value with kind one of scenes, "
        "hard_scenes, folder, refcoco, grefcoco, refcoco_m, reasonseg, png, instances, coco, cvat, labelme, masks.",
        show_default=False,
    ),
]


@group.callback()
def about() -> None:
    """Look at data sets, and write them in the plain form."""


@group.command()
def check(
    data: Data,
    *,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Read images outside their folder, where names or links lead there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Open every image and mask of DATA, and list what is wrong by file and line or entry.

    The exit code is 1 if anything is wrong or no sample can be used. What is broken is listed, with broken=skip too.
    """
    from vlm_adapters.data.check import check_dataset
    from vlm_adapters.data.open import open_skipping

    dataset = open_skipping(data, allow_outside=allow_outside)
    report = check_dataset(dataset, _indices(dataset, "Checking"))
    if as_json:
        print_json(asdict(report), indent=2)
    else:
        _print(report)
    raise typer.Exit(1 if report.problems or not report.samples else 0)


@group.command()
def convert(
    data: Data,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; new or empty.", show_default=False)],
) -> None:
    """Write DATA in the plain form: images, and samples.jsonl with texts, spans and masks as run lengths.

    Images that are upright and RGB are copied unchanged; others become PNGs.
    """
    from vlm_adapters.data.convert import write_folder
    from vlm_adapters.data.open import open_dataset

    dataset = open_dataset(data)
    unreadable = write_folder(dataset, out, _indices(dataset, "Writing"))
    left_out = (*dataset.problems, *unreadable)
    for problem in left_out:
        line(f"left out: {problem.place}: {problem.message}", err=True)
    line(f"{out}: {len(dataset) - len(unreadable):,} samples, {len(left_out):,} left out")


@group.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Folder to write; new or empty.", show_default=False)],
) -> None:
    """Write a template in the plain form: two images, and a mask in every form in which you can write it.

    Its README explains samples.jsonl. What is there is never overwritten.
    """
    from vlm_adapters.data.template import write_template

    for file in write_template(folder):
        line(str(file))
    line(f"Next: read {folder / 'README.md'}, then adapters data check {folder}")


def _indices(dataset: Dataset, activity: str) -> Iterator[int]:
    shown_on = console(err=True)
    return iter(track(range(len(dataset)), activity, console=shown_on, disable=not shown_on.is_terminal))


def _print(report: DataReport) -> None:
    counts = ("samples", "images", "phrases", "empty_masks")
    facts = [(name.replace("_", " "), getattr(report, name)) for name in counts]
    tags = [(f"phrases tagged {tag}", count) for tag, count in report.tags.items()]
    line(report.source, style="bold")
    print_facts("What it holds", [*facts, *tags, ("problems", len(report.problems))])
    for problem in report.problems:
        line(f"{problem.place}: {problem.message}", style="red")
    if not report.samples:
        line("No sample can be used.", style="red")
