"""`-v`, `-vv` and `-q`, which every command has: how much of the library's log a command shows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typing_extensions import override

from vlm_adapters.cli.printing import VERBOSITY, line

if TYPE_CHECKING:
    from typer.core import TyperCommand

_LOG = logging.getLogger("vlm_adapters")


class _Handler(logging.Handler):
    """Prints a record as a line of stderr."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        line(f"{record.levelname.lower()}: {record.getMessage()}", style="dim", err=True)


@contextmanager
def shown_log() -> Iterator[None]:
    """Within, the library's log is shown: warnings, unless a command sets another level."""
    handler, level = _Handler(), _LOG.level
    VERBOSITY.quiet = False
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(level)


def _set_verbose(*, verbose: bool) -> None:
    if verbose:
        _LOG.setLevel(min(_LOG.level, logging.INFO))


def _set_debug(*, debug: bool) -> None:
    if debug:
        _LOG.setLevel(logging.DEBUG)


def _set_quiet(*, quiet: bool) -> None:
    if quiet:
        VERBOSITY.quiet = True
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # before it is imported
        _LOG.setLevel(logging.ERROR)


_SHARED: dict[str, Any] = {"expose_value": False, "show_default": False}


def _options(  # flags alone: a count would import pydantic at every start
    *,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the library does.", callback=_set_verbose, **_SHARED)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", "-vv", help="Show it in detail.", callback=_set_debug, **_SHARED)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only results and errors.", callback=_set_quiet, **_SHARED)
    ] = False,
) -> None:
    """Hold the options, which are taken from here."""


@cache
def _verbosity_options() -> list[Any]:
    holder = typer.Typer(add_completion=False)
    holder.command()(_options)
    return list(typer.main.get_command(holder).params)


def with_verbosity(command: TyperCommand) -> TyperCommand:
    """Give a command, or all commands of a group, the options `-v`, `-vv` and `-q`."""
    inner = getattr(command, "commands", None)
    if inner is None:
        command.params.extend(_verbosity_options())
    else:
        for one in inner.values():
            with_verbosity(one)
    return command
