"""`adapters bench`: the cost of attention rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vlm_adapters.cli.arguments import JsonOption
from vlm_adapters.cli.printing import line, print_json, working
from vlm_adapters.cli.tables import print_rows

_MEANING = {
    "plain": "forward pass, sdpa",
    "rows": "the same, with exact rows",
    "states": "also with hidden states of the rows' tokens after every layer",
    "eager": "output_attentions=True",
}


def command(
    *,
    layers: Annotated[int, typer.Option(help="Number of layers of the language model.", min=1)] = 4,
    heads: Annotated[int, typer.Option(help="Number of query heads.", min=1)] = 28,
    length: Annotated[int, typer.Option(help="Number of tokens in the sequence.", min=64)] = 2048,
    rows: Annotated[int, typer.Option(help="Number of attention rows.", min=1)] = 16,
    repeats: Annotated[int, typer.Option(help="Number of timed passes of each variant.", min=1)] = 5,
    eager: Annotated[bool, typer.Option(help="Also measure output_attentions; long sequences need gigabytes.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of attention rows on the CPU, on a language model with random weights.

    Time is the median of the ratios to a plain pass in the same turn; memory is the peak of a process, less that of
    the process that runs the plain pass.
    """
    from vlm_adapters.inspection.bench import BenchSettings, run_bench

    settings = BenchSettings(
        layers=layers,
        heads=heads,
        length=length,
        rows=min(rows, length),
        columns=length // 2,
        repeats=repeats,
        eager=eager,
    )
    with working("Measuring ..."):
        found = run_bench(settings)
    if as_json:
        print_json({"settings": asdict(settings), "rows": [asdict(row) for row in found]})
        return
    line(f"{layers} layers, {heads} heads, {length} tokens, {settings.rows} rows, random weights, on the CPU")
    measured = []
    for row in found:
        memory = f"{row.peak_bytes / 2**20:+.0f} MiB" if row.variant != "plain" else None
        measured.append((_MEANING[row.variant], f"{row.seconds:.2f}", f"{row.time_ratio:.2f}", memory))
    numbers = ("seconds", "time / plain", "peak memory over plain")
    print_rows(None, ("pass", *numbers), measured, numbers)
