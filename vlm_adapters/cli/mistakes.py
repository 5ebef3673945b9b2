"""What is wrong with a command line, in one line that says what to write in its place."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from vlm_adapters.cli.printing import print_error, print_json

if TYPE_CHECKING:
    from typer.exceptions import TyperException

_PROGRAM = "adapters"


def report_error(kind: str, message: str, arguments: Sequence[str]) -> None:
    """Print an error as one line on stderr and, where JSON was requested, as an object on stdout.

    Args:
        kind: Name of the error's type.
        message: What happened, and what to do.
        arguments: The command line, without the name of the program.
    """
    print_error(message)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in options:
        print_json({"error": {"type": kind, "message": " ".join(message.split())}})


def usage_message(error: TyperException, arguments: Sequence[str]) -> str:
    """Say what is wrong with a command line, what may be meant, and whose help says more.

    Args:
        error: What typer found.
        arguments: The command line, without the name of the program.
    """
    context: Any = getattr(error, "ctx", None)  # of errors in the command line alone
    message = " ".join(error.format_message().split()).replace("Value error, ", "")
    if option := getattr(error, "option_name", None):
        message = _about_option(str(option), error, arguments) or message
    ending = "" if message.endswith("?") else "."
    command = context.command_path if context is not None else _PROGRAM
    return f"{message.rstrip('.')}{ending} See `{command} --help`."


def _about_option(option: str, error: TyperException, arguments: Sequence[str]) -> str | None:
    """Say what may be meant by an option that there is not; None where nothing is known."""
    context: Any = getattr(error, "ctx", None)
    if context is None or not hasattr(error, "possibilities"):
        return None
    message = error.message.rstrip(".")
    if context.parent is None and any(argument in context.command.commands for argument in arguments):
        return f"{message} before the command. The options of a command follow it: {_PROGRAM} COMMAND {option}"
    if similar := get_close_matches(option, error.possibilities or (), n=1):
        return f"{message}. Did you mean {similar[0]}?"
    if any(parameter.name == "changes" for parameter in context.command.params) and option.startswith("--"):
        key = option.lstrip("-").replace("-", "_")
        return f"{message}. Keys of a recipe are written without dashes: {key}={_value_of(option, arguments)}"
    return None


def _value_of(option: str, arguments: Sequence[str]) -> str:
    """The value that an option was given."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            return value if equals else following or "VALUE"
    return "VALUE"
