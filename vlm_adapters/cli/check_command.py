"""`adapters check`: the conformance suite."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vlm_adapters.cli.arguments import JsonOption
from vlm_adapters.cli.printing import line, print_json, styled, working
from vlm_adapters.cli.tables import print_rows

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

    with redirect_stdout(sys.stderr), working(f"Checking {name} ..."):
        results = run_checks(target.place(find_case(name)))
    if as_json:
        print_json([asdict(result) for result in results], indent=2)
    else:
        _print(name, results)
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
    reports: list[SuiteReport] = []
    for number, name in enumerate(names, 1):
        with redirect_stdout(sys.stderr), working(f"Checking {name} ({number} of {len(names)}) ..."):
            results = tuple(run_checks(target.place(find_case(name))))
        reports.append(SuiteReport(name, results, versions()))
        line(f"{number} of {len(names)}: {name}: {_counts(results)}", err=True)
    if as_json:
        print_json([asdict(report) for report in reports], indent=2)
    else:
        adapters = {report.adapter: capabilities_of(report.results) for report in reports}
        for row in markdown(adapters, versions()).splitlines():
            line(row)
    if any(result.state == "failed" for report in reports for result in report.results):
        raise typer.Exit(1)


def _print(name: str, results: list[CheckResult]) -> None:
    """Print one row per check, and the reasons of failed and skipped ones below the table."""
    from vlm_adapters.registry.versions import describe, versions

    line(describe(versions()), style="dim")
    rows = [(result.check, styled(result.state, _COLOURS[result.state]), f"{result.seconds:.1f}") for result in results]
    print_rows(None, ("check", "state", "seconds"), rows, ("seconds",))
    for result in results:
        if result.reason:
            line()
            line(f"{result.check} {result.state}: {result.reason}", style=_COLOURS[result.state])
    line()
    failed = any(result.state == "failed" for result in results)
    line(f"{name}: {_counts(results)}", style="red" if failed else "green")


def _counts(results: Sequence[CheckResult]) -> str:
    states: list[str] = [result.state for result in results]
    return ", ".join(f"{states.count(state)} {state}" for state in _COLOURS)
