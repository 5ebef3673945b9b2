"""`adapters list`: the installed adapters and their state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_adapters.cli.printing import line, print_json, stacked
from vlm_adapters.cli.tables import print_rows
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.unsupported import UNSUPPORTED, unsupported_family

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
    unsupported = _without_adapter(entries) if show_all else []
    if as_json:
        listed = [_as_json(entry) for entry in entries]
        listed += [_unsupported_as_json(family) for family in unsupported]
        print_json(listed, indent=2)
        return
    _print_table(entries)
    for family in unsupported:
        line()
        checkpoints = f" ({', '.join(family.checkpoints)})" if family.checkpoints else ""
        line(f"{family.name}{checkpoints} is not supported: {family.reason}.", style="yellow")


def _without_adapter(entries: list[AdapterEntry]) -> list[UnsupportedFamily]:
    """The unsupported families for which no plugin offers an adapter after all."""
    offered = [unsupported_family(entry.name or "") for entry in entries]
    return [family for family in UNSUPPORTED if family not in offered]


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


def _some(checkpoints: Sequence[str]) -> list[str]:
    """The first checkpoint, and how many follow; JSON has all."""
    more = len(checkpoints) - 1
    return [*checkpoints[:1], *([f"and {more} more"] if more > 0 else [])]


def _print_table(entries: list[AdapterEntry]) -> None:
    """Print one row per entry within 80 columns, and the reasons of broken ones below the table."""
    if not entries:
        line("No plugin is installed or allowed to load.")
    rows = []
    for entry in entries:
        word = entry.state.split(":")[0]
        state = stacked(word.split(" ", 1), _COLOURS[word.split()[0]])
        distribution = stacked((entry.distribution or "?", entry.version or ""))
        rows.append((entry.name or "?", entry.plugin, distribution, state, stacked(_some(entry.checkpoints))))
    print_rows(None, ("name", "plugin", "distribution", "state", "checkpoints"), rows, gap=1)
    for entry in entries:
        if entry.broken:
            line()
            line(f"broken: {entry.origin}: {entry.broken}", style="red")
