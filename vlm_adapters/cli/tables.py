"""Tables that several commands print, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

ABSENT = "-"


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
