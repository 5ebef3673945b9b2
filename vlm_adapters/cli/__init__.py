"""The command line: `adapters COMMAND`. One file per command.

The command `NAME` is the function `command` in `NAME_command.py`, or the commands of its `group`; its docstring is the
help. A command imports everything beyond typer and rich inside the function, since `adapters --help` imports them all.
Exit codes: 0 done, 1 an error that the user can fix (one line on stderr), 2 a command line that is not understood,
130 Ctrl-C, 143 SIGTERM; the last two unwind, so that nothing half-written stays. With `--json` the last line of stdout
is then `{"error": {"type": ..., "message": ...}}`.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typing_extensions import override

from vlm_adapters.cli.mistakes import report_error, usage_message
from vlm_adapters.cli.printing import VERBOSITY, escape_what_cannot_be_encoded, line
from vlm_adapters.cli.signals import INTERRUPTED_EXIT, SIGTERM_EXIT, TerminatedCommandError, signals_unwind
from vlm_adapters.cli.verbosity import shown_log, with_verbosity
from vlm_adapters.errors import AdapterError
from vlm_adapters.limits import plain, shown

if TYPE_CHECKING:
    from typer.core import TyperCommand

PANELS = {
    "Use a model": ("ground", "chat", "web", "attend", "extract", "demo"),
    "Know a model": ("list", "info", "probe", "bench"),
    "Data": ("data",),
    "Train and measure": ("plan", "cache", "train", "evaluate", "calibrate", "convert", "push"),
    "Add a model": ("discover", "scaffold", "check"),
    "This installation": ("doctor", "schema"),
}
"""All commands, in the panels and in the order of the help."""

COMMANDS = {command: panel for panel, commands in PANELS.items() for command in commands}
"""The panel of every command."""

RESUMABLE = ("extract", "evaluate", "cache", "train")
"""Commands that keep what they have done when they are stopped."""


class _StoppedError(BaseException):
    """SIGTERM or Ctrl-C in a command; typer makes an exit code of `KeyboardInterrupt`, and the cause is lost."""


class _Commands(Mapping[str, "TyperCommand"]):
    """The commands, each imported when it is used."""

    @override
    def __getitem__(self, name: str) -> TyperCommand:
        panel = COMMANDS[name]
        module = import_module(f"{__name__}.{name}_command")
        app = getattr(module, "group", None) or typer.Typer(add_completion=False)
        if not hasattr(module, "group"):
            app.command(name)(module.command)
        command = cast("TyperCommand", typer.main.get_command(app))
        command.name, command.rich_help_panel = name, panel
        return with_verbosity(command)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    @override
    def __len__(self) -> int:
        return len(COMMANDS)


class _CommandGroup(TyperGroup):
    """The group of all commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = cast("MutableMapping[str, Any]", _Commands())

    @override
    def invoke(self, ctx: Any) -> object:  # typer brings a Context of its own
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _StoppedError from error


# typer gives its own options no default and then imports pydantic to check that None is a bool: 60 ms at every start
_HELP_DEFAULT = {"help": False}
_DEFAULTS = {**_HELP_DEFAULT, "install_completion": False, "show_completion": False}

app = typer.Typer(
    cls=_CommandGroup,
    pretty_exceptions_enable=False,
    context_settings={
        "default_map": {**_DEFAULTS, **dict.fromkeys(COMMANDS, _HELP_DEFAULT)},
        "help_option_names": ["-h", "--help"],
    },
)


def main() -> None:
    """Run the command line; an error that the user can fix becomes one line."""
    warnings.formatwarning = partial(_one_line, set())
    escape_what_cannot_be_encoded()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # progress bars only on a terminal
    arguments = sys.argv[1:] or ["--help"]
    code: int | None = 1
    try:
        with signals_unwind(), shown_log():
            code = _run(arguments)
    except AdapterError as error:
        report_error(type(error).__name__, str(error), arguments)
    except TyperException as error:
        code = error.exit_code
        report_error("UsageError", usage_message(error, arguments), arguments)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"A name is too long for this system: {shown(error.filename)}. Choose a shorter one."
        report_error("OSError", message, arguments)
    except (_StoppedError, KeyboardInterrupt, typer.Abort) as error:
        terminated = TerminatedCommandError in (type(error), type(error.__cause__))
        _print_stopped("SIGTERM" if terminated else "Ctrl-C", arguments)
        code = SIGTERM_EXIT if terminated else INTERRUPTED_EXIT
    sys.exit(code)


def _print_stopped(cause: str, arguments: list[str]) -> None:
    """Say how to go on; the global options come before the name of the command."""
    command = next((argument for argument in arguments if argument in COMMANDS), "")
    again = "the same command resumes: " if command in RESUMABLE else "nothing half-written stays. Run it again: "
    line(f"Stopped by {cause}; {again}{shlex.join(['adapters', *arguments])}", err=True)


def _run(arguments: list[str]) -> int | None:
    try:
        code: int | None = app(arguments, prog_name="adapters", standalone_mode=False)
    except ImportError:
        from vlm_adapters.registry.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise
    return code


def _one_line(printed: set[str], message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the line of code that warned; nothing if it was printed before, from whichever thread."""
    text = f"warning: {plain(' '.join(str(message).split()))}\n"
    if text in printed or VERBOSITY.quiet:
        return ""
    printed.add(text)
    return text


def _print_versions(*, requested: bool) -> None:
    if requested:
        from vlm_adapters.registry.versions import versions  # noqa: PLC0415 - reading metadata takes longer than starting

        for name, number in versions().items():
            line(f"{name} {number}")
        raise typer.Exit


def _set_take_over(*, requested: bool) -> None:
    if requested:
        from vlm_adapters.data.locks import TAKE_OVER  # noqa: PLC0415 - only where it is asked for

        os.environ[TAKE_OVER] = "1"  # processes that are started from here inherit it


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions.", callback=_print_versions, is_eager=True)
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Write into a folder that a run has marked as in use, where the file system has no locks.",
            callback=_set_take_over,
        ),
    ] = False,
) -> None:
    """Grids and masks from frozen vision-language models."""
