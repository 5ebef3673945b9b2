"""Tables that several commands print, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from vlm_adapters.cli.printing import console, line, styled

if TYPE_CHECKING:
    from vlm_adapters.grounding.result import Grounding

ABSENT = "-"
"""Stands for a value that there is not."""


def print_facts(title: str, facts: Iterable[tuple[str, object]]) -> None:
    """Print a title and one row per fact."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(styled(name), cell(value))
    line()
    line(title, style="bold")
    console().print(table)


def print_rows(
    title: str | None,
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    numbers: Sequence[str] = (),
    *,
    gap: int = 2,
) -> None:
    """Print a title and a table; the columns in `numbers` are right-aligned. Prints nothing without rows.

    Args:
        title: Title above the table; None for none.
        headings: Headings of the columns.
        rows: A value per column, each as `cell` shows it.
        numbers: Headings of the columns that are right-aligned.
        gap: Spaces between the columns.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(styled(heading), overflow="fold", justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*map(cell, row))
    if not table.row_count:
        return
    if title is not None:
        line()
        line(title, style="bold")
    console().print(table)


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
    score = "score (means nothing here)" if grounding.warnings else "score"
    print_rows(None, ["phrase", "presence", score, "box", *(["IoU"] if ious else [])], rows)
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
