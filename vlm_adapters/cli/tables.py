"""Tables that several commands print, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from vlm_adapters.grounding.result import Grounding

ABSENT = "-"
"""Stands for a value that there is not."""


def print_facts(console: Console, title: str, facts: Iterable[tuple[str, object]]) -> None:
    """Print a title and one row per fact."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(shown(value)))
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)


def print_rows(
    console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()
) -> None:
    """Print a title and a table; the columns in `numbers` are right-aligned. Prints nothing without rows."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*(Text(shown(value)) for value in row))
    if table.row_count:
        console.print(Text(f"\n{title}", style="bold"))
        console.print(table)


def print_grounding(grounding: Grounding, files: Sequence[Path], ious: Sequence[float] | None = None) -> None:
    """Print a row per phrase, and where the files are.

    Args:
        grounding: What to print.
        files: The files that were written.
        ious: IoU of every mask with the true one, where known.
    """
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


def shown(value: object) -> str:
    """Format a value: thousands separators, a dash for None, commas between several values."""
    if value is None:
        return ABSENT
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or ABSENT
    return str(value)


def size(height_width: tuple[int, int] | None) -> str:
    """`height x width` of an image or a grid."""
    return ABSENT if height_width is None else f"{height_width[0]}x{height_width[1]}"


def shape(lengths: Sequence[int]) -> str:
    """Shape of a tensor, as Python writes it."""
    return str(tuple(lengths))
