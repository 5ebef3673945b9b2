"""`adapters list`: the installed adapters and their state."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.unsupported import UNSUPPORTED

if TYPE_CHECKING:
    from vlm_adapters.registry.entry import AdapterEntry
    from vlm_adapters.registry.unsupported import UnsupportedFamily

_COLOURS = {"ready": "green", "needs": "yellow", "broken": "red"}


def command(
    *,
    show_all: Annotated[
        bool, typer.Option("--all", help="Also list families that no adapter can be built for.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, for programs.")] = False,
) -> None:
    """List the adapters of all installed plugins and their state.

    --json prints a list of objects with these keys:
    name (null for a plugin that broke before it declared one), plugin,
    distribution and version (null if it is not installed),
    state ("ready", "needs WHAT", "broken: WHY" or, with --all, "unsupported:
    WHY"), checkpoints (hub ids).
    """
    with redirect_stdout(sys.stderr):  # a plugin that prints on import must not spoil the JSON
        entries = list_adapters()
    if as_json:
        listed = [_as_json(entry) for entry in entries]
        listed += [_unsupported_as_json(family) for family in UNSUPPORTED] if show_all else []
        typer.echo(json.dumps(listed, indent=2))
        return
    _print_table(entries)
    for family in UNSUPPORTED if show_all else ():
        message = f"\n{family.name} ({', '.join(family.checkpoints)}) is not supported: {family.reason}."
        Console().print(Text(message, style="yellow"), soft_wrap=True)


def _as_json(entry: AdapterEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "plugin": entry.plugin,
        "distribution": entry.distribution,
        "version": entry.version,
        "state": entry.state,
        "checkpoints": list(entry.checkpoints),
    }


def _unsupported_as_json(family: UnsupportedFamily) -> dict[str, object]:
    nothing = dict.fromkeys(("plugin", "distribution", "version"))
    checkpoints = list(family.checkpoints)
    return {"name": family.name, **nothing, "state": f"unsupported: {family.reason}", "checkpoints": checkpoints}


def _print_table(entries: list[AdapterEntry]) -> None:
    """Print one row per entry within 80 columns, and the reasons of broken ones below the table."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("name", "plugin", "distribution", "state", "checkpoints"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        word = entry.state.split(":")[0]
        table.add_row(
            Text(entry.name or "?"),
            Text(entry.plugin),
            Text(f"{entry.distribution or '?'}\n{entry.version or ''}"),
            Text(word.replace(" ", "\n", 1), style=_COLOURS[word.split()[0]]),
            Text("\n".join(entry.checkpoints)),
        )
    console = Console()
    console.print(table if entries else "No plugin is installed or allowed to load.")
    for entry in entries:
        if entry.broken:
            console.print(Text(f"\nbroken: {entry.origin}: {entry.broken}", style="red"), soft_wrap=True)
