"""The command line: `adapters COMMAND`. One file per command.

The command `NAME` is the function `command` in `NAME_command.py`, or the commands of its `group`; its docstring is the
help. A command imports everything beyond typer and rich inside the function, since `adapters --help` imports them all.
Exit codes: 0 done, 1 an error that the user can fix (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from vlm_adapters.cli.printing import escape_what_cannot_be_encoded, line
from vlm_adapters.errors import AdapterError
from vlm_adapters.limits import plain, shown

if TYPE_CHECKING:
    from typer.core import TyperCommand

COMMANDS = (
    "list",
    "info",
    "ground",
    "attend",
    "evaluate",
    "calibrate",
    "probe",
    "check",
    "scaffold",
    "convert",
    "data",
    "plan",
    "cache",
    "train",
    "demo",
    "bench",
)
"""All commands, in the order of the help."""


class _CommandGroup(TyperGroup):
    """A group that imports a command when it is used."""

    def list_commands(self, _: object) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: object, cmd_name: str) -> TyperCommand | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{cmd_name}_command")
        if hasattr(module, "group"):
            return cast("TyperCommand", typer.main.get_command(module.group))
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(module.command)
        return cast("TyperCommand", typer.main.get_command(single))


# typer gives its own --help no default and then imports pydantic to check that None is a bool: 60 ms at every start
_HELP_DEFAULT = {"help": False}

app = typer.Typer(
    cls=_CommandGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"default_map": {**_HELP_DEFAULT, **dict.fromkeys(COMMANDS, _HELP_DEFAULT)}},
)


def main() -> None:
    """Run the command line; an error that the user can fix becomes one line."""
    warnings.formatwarning = _one_line
    escape_what_cannot_be_encoded()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # progress bars only on a terminal
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"]))
    except AdapterError as error:
        message = str(error)
    except TyperException as error:
        message = f"{error.format_message().rstrip('.')}. See `adapters --help`, or --help after a command."
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"A name is too long for this system: {shown(error.filename)}. Choose a shorter one."
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    line(f"error: {' '.join(message.split())}", style="red", err=True)
    sys.exit(1)


def _run(arguments: list[str]) -> int | None:
    try:
        code: int | None = app(arguments, standalone_mode=False)
    except ImportError:
        from vlm_adapters.registry.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise
    return code


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the line of code that warned."""
    return f"warning: {plain(' '.join(str(message).split()))}\n"


def _print_versions(*, requested: bool) -> None:
    if requested:
        from vlm_adapters.registry.versions import versions  # noqa: PLC0415 - reading metadata takes longer than starting

        for name, number in versions().items():
            line(f"{name} {number}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions.", callback=_print_versions, is_eager=True)
    ] = False,
) -> None:
    """Grids and masks from frozen vision-language models."""
