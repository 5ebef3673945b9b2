"""`adapters check`: the conformance suite."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vlm_adapters.cli.arguments import JsonOption
from vlm_adapters.cli.completion import adapter_names
from vlm_adapters.cli.printing import line, print_json, styled, working
from vlm_adapters.cli.tables import print_rows

if TYPE_CHECKING:
    from vlm_adapters.testing import AdapterCase, Check, CheckResult
    from vlm_adapters.testing.matrix import SuiteReport

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow"}


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|PATH",
            help="Name of an adapter, as `adapters list` shows it, or the folder of a plugin's project.",
            show_default=False,
            autocompletion=adapter_names,
        ),
    ] = None,
    *,
    check_all: Annotated[bool, typer.Option("--all", help="Check every adapter and print the support matrix.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this check, such as check_orientation; may be repeated.")
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Print where a failed check failed.")] = False,
    device: Annotated[
        str, typer.Option("--device", "-d", help="Device of the tiny models: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="Precision of their weights: float32, bfloat16, float16.")] = "float32",
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite over the adapter NAME, or those of a plugin's project.

    It runs on the tiny model of the plugin, without a download, and prints the
    versions first. The exit code is 1 if a check fails. Below float32, outputs are
    compared with the oracle's on average, within 10 %.

    --json prints a list of objects with these keys: check, title (the expected
    behaviour), state ("passed", "failed" or "skipped"), reason (empty if passed), seconds,
    traceback (empty unless failed); with --all or PATH a list of objects with adapter,
    results, such a list, and versions, an object from package to number.
    """
    from vlm_adapters.errors import OptionError
    from vlm_adapters.registry.discovery import list_adapters
    from vlm_adapters.registry.versions import versions
    from vlm_adapters.testing import ALL_CHECKS, cases_of_project, checks_named, find_case
    from vlm_adapters.testing.matrix import SuiteReport

    if check_all == (name is not None):
        raise OptionError("Give the name of one adapter, the folder of a plugin's project, or --all.")
    run = _Run(device, dtype, checks_named(only) if only else ALL_CHECKS)
    path = Path(name) if name and (os.sep in name or (Path(name) / "pyproject.toml").is_file()) else None
    if path is not None:
        cases = {case.name: case for case in cases_of_project(path)}
        reports = [
            SuiteReport(each, tuple(run.over(each, partial(cases.__getitem__, each))), versions()) for each in cases
        ]
    else:
        names = [name] if name else [entry.name for entry in list_adapters() if entry.name and entry.state == "ready"]
        reports = []
        for number, each in enumerate(names, 1):
            results = run.over(each, partial(find_case, each))
            reports.append(SuiteReport(each, tuple(results), versions()))
            if check_all:
                line(f"{number} of {len(names)}: {each}: {_counts(results)}", err=True)
    if as_json:
        each_report = [asdict(report) for report in reports]
        print_json(each_report[0]["results"] if name and path is None else each_report, indent=2)
    elif check_all:
        _print_matrix(reports, traceback=traceback)
    else:
        for report in reports:
            _print(report, traceback=traceback)
    if any(result.state == "failed" for report in reports for result in report.results):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Run:
    """How checks are run: device and dtype as the user typed them, and which checks."""

    device: str
    dtype: str
    checks: Sequence[Check]

    def over(self, name: str, find: Callable[[], AdapterCase]) -> list[CheckResult]:
        """Run the checks over a case, and show how far they are."""
        import torch

        from vlm_adapters.hf.placement import resolve_device, resolve_dtype
        from vlm_adapters.testing import run_checks

        dtype = cast("torch.dtype", resolve_dtype(self.dtype, on_cpu=True))
        with redirect_stdout(sys.stderr), working(f"Checking {name} ...") as status:
            count = iter(range(1, len(self.checks) + 1))
            case = find().on(str(resolve_device(self.device)), dtype)
            return run_checks(
                case,
                self.checks,
                lambda result: status.update(
                    styled(f"Checking {name} ... {next(count)} of {len(self.checks)}: {result.check} {result.state}")
                ),
            )


def _print_matrix(reports: Sequence[SuiteReport], *, traceback: bool) -> None:
    """Print the matrix in Markdown, and on stderr why checks failed."""
    from vlm_adapters.registry.versions import versions
    from vlm_adapters.testing.matrix import capabilities_of, markdown

    for report in reports:
        for result in report.results:
            if result.state == "failed":
                line(f"{report.adapter}: {result.check} failed: {result.reason}", style="red", err=True)
                _print_traceback(result, traceback=traceback)
    adapters = {report.adapter: capabilities_of(report.results) for report in reports}
    for row in markdown(adapters, versions()).splitlines():
        line(row)


def _print(report: SuiteReport, *, traceback: bool) -> None:
    """Print one row per check, and the reasons of failed and skipped ones below the table."""
    from vlm_adapters.registry.versions import describe

    line(describe(report.versions), style="dim")
    rows = [
        (result.check, styled(result.state, _COLOURS[result.state]), f"{result.seconds:.1f}")
        for result in report.results
    ]
    print_rows(None, ("check", "state", "seconds"), rows, ("seconds",))
    for result in report.results:
        if result.reason:
            line()
            line(f"{result.check} {result.state}: {result.reason}", style=_COLOURS[result.state])
            _print_traceback(result, traceback=traceback)
    line()
    failed = any(result.state == "failed" for result in report.results)
    line(f"{report.adapter}: {_counts(report.results)}", style="red" if failed else "green")


def _print_traceback(result: CheckResult, *, traceback: bool) -> None:
    for row in result.traceback.splitlines() if traceback else ():
        line(row, err=True)


def _counts(results: Sequence[CheckResult]) -> str:
    states: list[str] = [result.state for result in results]
    return ", ".join(f"{states.count(state)} {state}" for state in _COLOURS)
