"""Tables that several commands print, readable at 80 columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from vlm_adapters.cli.printing import console, line, styled

if TYPE_CHECKING:
    from vlm_adapters.grounding.result import Grounding

ABSENT = "-"
"""Stands for a value that there is not."""

_GAP = 2


def print_facts(title: str, facts: Iterable[tuple[str, object]]) -> None:
    """Print a title and one row per fact, whose lines are broken as those of `print_rows`."""
    line()
    line(title, style="bold")
    columns = [[styled(name, "dim"), cell(value)] for name, value in facts]
    _print_columns(Table.grid(padding=(0, _GAP, 0, 0)), list(zip(*columns, strict=True)), _GAP)


def print_rows(
    title: str | None,
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    numbers: Sequence[str] = (),
    *,
    gap: int = _GAP,
) -> None:
    """Print a title and a table; the columns in `numbers` are right-aligned. Prints nothing without rows.

    Lines are broken between words alone, and in a pipe not at all: ids and paths stay whole, to be copied and searched.

    Args:
        title: Title above the table; None for none.
        headings: Headings of the columns.
        rows: A value per column, each as `cell` shows it.
        numbers: Headings of the columns that are right-aligned.
        gap: Spaces between the columns.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        return
    if title is not None:
        line()
        line(title, style="bold")
    table = Table.grid(padding=(0, gap, 0, 0))
    for heading in headings:
        table.add_column(justify="right" if heading in numbers else "left")
    _print_columns(table, list(zip([styled(heading, "dim") for heading in headings], *cells, strict=True)), gap)


def _print_columns(table: Table, columns: Sequence[Sequence[Text]], gap: int) -> None:
    """Print texts in columns, as wide as the terminal where their words allow that."""
    terminal = console()
    is_piped = not (terminal.is_terminal or "COLUMNS" in os.environ)
    widths = _widths(columns, None if is_piped else terminal.width - gap * (len(columns) - 1))
    for index, width in enumerate(widths):
        if index == len(table.columns):
            table.add_column()
        table.columns[index].width = width
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    terminal.width = max(terminal.width, sum(widths) + gap * len(widths))
    terminal.print(table)


def _widths(columns: Sequence[Sequence[Text]], available: int | None) -> list[int]:
    """Widths of the columns of a table: where there is too little room, those give way that can, by what they can."""
    lines = [[part for text in column for part in text.plain.split("\n")] for column in columns]
    whole = [max(map(cell_len, column)) for column in lines]
    if available is None:
        return whole
    words = [max((cell_len(word) for part in column for word in part.split()), default=0) for column in lines]
    slack = [most - least for most, least in zip(whole, words, strict=True)]
    missing = min(max(sum(whole) - available, 0), sum(slack))
    return [most - ceil(give * missing / (sum(slack) or 1)) for most, give in zip(whole, slack, strict=True)]


def print_grounding(grounding: Grounding, files: Sequence[Path], ious: Sequence[float] | None = None) -> None:
    """Print a row per phrase, and where the files are; where the result has warnings, scores are no claim.

    Args:
        grounding: What to print.
        files: The files that were written.
        ious: IoU of every mask with the true one, where known.
    """
    rows = []
    for index, grounded in enumerate(grounding.phrases):
        box = " ".join(map(str, grounded.box)) if grounded.box else "nothing found"
        presence = None if grounded.presence is None else f"{grounded.presence:.2f}"
        state = "absent" if grounded.state == "absent" and not grounded.box else box
        iou = [f"{ious[index]:.2f}"] if ious else []
        rows.append([grounded.phrase.text, presence, f"{grounded.score:.2f}", state, *iou])
    presence, score = (f"{name} (meaningless)" if grounding.warnings else name for name in ("presence", "score"))
    print_rows(None, ["phrase", presence, score, "box", *(["IoU"] if ious else [])], rows)
    for file in files:
        line(str(file), style="dim")


def cell(value: object) -> Text:
    """A value as a table shows it: a text that is ready as it is, anything else on one line."""
    return value if isinstance(value, Text) else styled(shown(value))


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
