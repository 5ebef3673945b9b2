"""`adapters schema`: JSON Schemas of what commands print with `--json`."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.errors import OptionError
from vlm_adapters.limits import did_you_mean, shown


def command(
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="A command, such as data check, or error.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of what COMMAND prints with --json; without COMMAND, list those that do.

    `adapters schema error` is that of the last line of stdout where a command fails.
    """
    from vlm_adapters.cli.results import PRINTED, schema_of

    if not name:
        for known in PRINTED:
            line(known)
        return
    chosen = " ".join(name)
    if chosen not in PRINTED:
        raise OptionError(
            f"The command {shown(chosen)} prints no JSON.{did_you_mean(chosen, PRINTED)} Use one of "
            f"{', '.join(PRINTED)}."
        )
    print_json(schema_of(chosen), indent=2)
