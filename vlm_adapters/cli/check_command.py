"""`adapters check`: the conformance suite."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlm_adapters.cli.arguments import JsonOption

if TYPE_CHECKING:
    from vlm_adapters.testing import AdapterCase, CheckResult

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def command(
    name: Annotated[
        str | None, typer.Argument(help="Name of an adapter, as `adapters list` shows it.", show_default=False)
    ] = None,
    *,
    check_all: Annotated[bool, typer.Option("--all", help="Check every adapter and print the support matrix.")] = False,
    device: Annotated[str, typer.Option(help="Device of the tiny models: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of their weights: float32, bfloat16, float16.")] = "float32",
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite over the adapter NAME.

    It runs on the tiny model of the plugin, without a download, and prints the
    versions first. The exit code is 1 if a check fails. Below float32, outputs are
    compared with the oracle's on average, within 10 %.

    --json prints a list of objects with these keys: check, title (the expected
    behaviour), state ("passed", "failed" or "skipped"), reason (empty if passed), seconds;
    with --all a list of objects with adapter, results, such a list, and versions,
    an object from package to number.
    """
    from vlm_adapters.errors import OptionError
    from vlm_adapters.testing import run_checks
    from vlm_adapters.testing.lookup import find_case

    if check_all == (name is not None):
        raise OptionError("Give the name of one adapter, or --all. `adapters list` shows the names.")
    target = _Target(device, dtype)
    if name is None:
        _check_all(target, as_json=as_json)
        return

    with redirect_stdout(sys.stderr), Console(stderr=True).status(f"Checking {name} ..."):
        results = run_checks(target.place(find_case(name)))
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        _print(name, results, Console())
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Target:
    """The device and dtype of a run, as the user typed them."""

    device: str
    dtype: str

    def place(self, case: AdapterCase) -> AdapterCase:
        """Move a case to the device and dtype."""
        import torch

        from vlm_adapters.hf.placement import resolve_device, resolve_dtype

        dtype = resolve_dtype(self.dtype, on_cpu=True)
        return case.on(str(resolve_device(self.device)), cast("torch.dtype", dtype))


def _check_all(target: _Target, *, as_json: bool) -> None:
    """Check every adapter that is ready, and print the matrix in Markdown."""
    from vlm_adapters.registry.discovery import list_adapters
    from vlm_adapters.registry.versions import versions
    from vlm_adapters.testing import run_checks
    from vlm_adapters.testing.lookup import find_case
    from vlm_adapters.testing.matrix import SuiteReport, capabilities_of, markdown

    names = [entry.name for entry in list_adapters() if entry.name and entry.state == "ready"]
    with redirect_stdout(sys.stderr), Console(stderr=True).status("Checking ...") as status:
        reports: list[SuiteReport] = []
        for name in names:
            status.update(f"Checking {name} ({len(reports) + 1} of {len(names)}) ...")
            results = tuple(run_checks(target.place(find_case(name))))
            reports.append(SuiteReport(name, results, versions()))
    if as_json:
        typer.echo(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        adapters = {report.adapter: capabilities_of(report.results) for report in reports}
        typer.echo(markdown(adapters, versions()), nl=False)
    if any(result.state == "failed" for report in reports for result in report.results):
        raise typer.Exit(1)


def _print(name: str, results: list[CheckResult], console: Console) -> None:
    """Print one row per check, and the reasons of failed and skipped ones below the table."""
    from vlm_adapters.registry.versions import describe, versions

    console.print(Text(describe(versions()), style="dim"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("check", overflow="fold")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    for result in results:
        row = (Text(result.check), Text(result.state, style=_COLOURS[result.state]), Text(f"{result.seconds:.1f}"))
        table.add_row(*row)
    console.print(table)
    for result in results:
        if result.reason:
            console.print(
                Text(f"\n{result.check} {result.state}: {result.reason}", style=_COLOURS[result.state]), soft_wrap=True
            )
    states: list[str] = [result.state for result in results]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _COLOURS)
    console.print(Text(f"\n{name}: {counts}", style="red" if "failed" in states else "green"))
