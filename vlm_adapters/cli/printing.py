"""The one place through which commands print, so that the text of a person is text.

Phrases, names of files, ids and messages may hold anything: markup of rich, escapes that command a terminal, line
breaks that forge a line. Whatever passes here is shown as it is, with an escape for what would do more than be shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from vlm_adapters.limits import plain

if TYPE_CHECKING:
    from rich.status import Status


@dataclass
class Verbosity:
    """What the command that runs prints beside its results and errors.

    Attributes:
        quiet: Whether that is nothing.
    """

    quiet: bool = False


VERBOSITY = Verbosity()


def console(*, err: bool = False, quiet: bool = False) -> Console:
    """A console that reads no markup and no names of emoji, on stdout or on stderr, where `-q` leaves errors only."""
    quiet = quiet or (err and VERBOSITY.quiet)
    return Console(stderr=err, quiet=quiet, markup=False, emoji=False, highlight=False)


def styled(text: str, style: str = "") -> Text:
    """A text in a style, on one line."""
    return Text(plain(text), style=style)


def stacked(lines: Iterable[str], style: str = "") -> Text:
    """Texts below each other, in one cell of a table."""
    return Text("\n".join(map(plain, lines)), style=style)


def marked(text: str, styles: Iterable[tuple[tuple[int, int], str]] = ()) -> Text:
    """A text with its line breaks.

    Args:
        text: The text.
        styles: Spans `(start, end)` of its characters that do not overlap, and their styles.
    """
    found, end = Text(), 0
    for (start, stop), style in sorted(styles):
        found.append_text(stacked(text[end:start].split("\n")))
        found.append_text(stacked(text[start:stop].split("\n"), style))
        end = stop
    return found.append_text(stacked(text[end:].split("\n")))


def line(text: str = "", *, style: str = "", err: bool = False) -> None:
    """Print one line, which is not wrapped; a line break in the text is shown as an escape."""
    console(err=err).print(styled(text, style), soft_wrap=True)


def print_error(message: str) -> None:
    """Print an error as one line on stderr."""
    terminal = Console(stderr=True, markup=False, emoji=False, highlight=False)
    terminal.print(styled(f"error: {' '.join(message.split())}", "red"), soft_wrap=True)


def print_json(content: object, *, indent: int | None = None) -> None:
    """Print JSON, for programs: in ASCII, where everything that a terminal might obey is an escape."""
    sys.stdout.write(json.dumps(content, indent=indent) + "\n")


def working(text: str) -> Status:
    """Show what a command is doing while a block runs, where somebody watches."""
    return console(err=True).status(styled(text))


def escape_what_cannot_be_encoded() -> None:
    """Let stdout and stderr write an escape for a character that their encoding lacks, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
