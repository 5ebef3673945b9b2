"""The command line: `adapters COMMAND`. One file per command.

The command `NAME` is the function `command` in `NAME_command.py`, or the commands of its `group`; its docstring is the
help. A command imports everything beyond typer and rich inside the function, since `adapters --help` imports them all.
Exit codes: 0 done, 1 an error that the user can fix (one line on stderr), 130 Ctrl-C, 143 SIGTERM; both
unwind, so that nothing half-written stays.
"""

from __future__ import annotations

import _thread
import errno
import os
import shlex
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typing_extensions import override

from vlm_adapters.cli.printing import escape_what_cannot_be_encoded, line
from vlm_adapters.errors import AdapterError
from vlm_adapters.limits import plain, shown

if TYPE_CHECKING:
    from typer.core import TyperCommand

COMMANDS = (
    "list",
    "info",
    "ground",
    "chat",
    "web",
    "attend",
    "extract",
    "evaluate",
    "calibrate",
    "probe",
    "check",
    "discover",
    "scaffold",
    "convert",
    "data",
    "plan",
    "cache",
    "train",
    "push",
    "demo",
    "bench",
    "doctor",
)
"""All commands, in the order of the help."""

INTERRUPTED_EXIT, SIGTERM_EXIT = 130, 143
"""What a shell says of a process that SIGINT or SIGTERM ended."""


RESUMABLE = ("extract", "evaluate", "cache", "train")
"""Commands that keep what they have done when they are stopped."""


class _InterruptedError(KeyboardInterrupt):
    """Ctrl-C."""


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM; whatever lets Ctrl-C through lets it through."""


class _StoppedError(BaseException):
    """SIGTERM or Ctrl-C in a command; typer makes an exit code of `KeyboardInterrupt`, and the cause is lost."""


class _CommandGroup(TyperGroup):
    """A group that imports a command when it is used."""

    @override
    def invoke(self, ctx: Any) -> object:  # typer brings a Context of its own
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _StoppedError from error

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
    warnings.formatwarning = partial(_one_line, set())
    escape_what_cannot_be_encoded()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # progress bars only on a terminal
    arguments = sys.argv[1:] or ["--help"]
    try:
        with _signals_unwind():
            code = _run(arguments)
        sys.exit(code)
    except AdapterError as error:
        message = str(error)
    except TyperException as error:
        message = f"{error.format_message().rstrip('.')}. See `adapters --help`, or --help after a command."
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"A name is too long for this system: {shown(error.filename)}. Choose a shorter one."
    except (_StoppedError, KeyboardInterrupt, typer.Abort) as error:
        terminated = _TerminatedError in (type(error), type(error.__cause__))
        _print_stopped("SIGTERM" if terminated else "Ctrl-C", arguments)
        sys.exit(SIGTERM_EXIT if terminated else INTERRUPTED_EXIT)
    line(f"error: {' '.join(message.split())}", style="red", err=True)
    sys.exit(1)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Within, SIGTERM raises an exception, as Ctrl-C does, and neither is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _raising(_TerminatedError))}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller, or the shell, ignores it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _raising(_InterruptedError))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raising(kind: type[KeyboardInterrupt]) -> Callable[[int, object], None]:
    """A handler that raises, and raises again if the exception dies before the end of the command.

    C code may drop an exception that is raised in a call of its own, as modules do that Cython made while they are
    imported.
    """

    def handle(number: int, _: object) -> None:
        raise watched(number)

    def watched(number: int) -> KeyboardInterrupt:
        error = kind()
        weakref.finalize(error, _raise_later, number, handle).atexit = False
        return error

    return handle


def _raise_later(number: int, handler: object) -> None:
    # from another thread: where an exception dies, another one would be dropped, too
    later = threading.Timer(0.05, _raise_again, (number, handler))
    later.daemon = True
    later.start()


def _raise_again(number: int, handler: object) -> None:
    if signal.getsignal(number) is handler:  # else the command has ended
        _thread.interrupt_main(signal.Signals(number))


def _print_stopped(cause: str, arguments: list[str]) -> None:
    """Say how to go on; the global options come before the name of the command."""
    command = next((argument for argument in arguments if argument in COMMANDS), "")
    again = "the same command resumes: " if command in RESUMABLE else "nothing half-written stays. Run it again: "
    line(f"Stopped by {cause}; {again}{shlex.join(['adapters', *arguments])}", err=True)


def _run(arguments: list[str]) -> int | None:
    try:
        code: int | None = app(arguments, standalone_mode=False)
    except ImportError:
        from vlm_adapters.registry.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise
    return code


def _one_line(printed: set[str], message: Warning | str, *_: object, **__: object) -> str:
    """A warning without the line of code that warned; nothing if it was printed before, from whichever thread."""
    text = f"warning: {plain(' '.join(str(message).split()))}\n"
    if text in printed:
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
