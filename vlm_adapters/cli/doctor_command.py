"""`adapters doctor`: what is installed, what is missing, and what is too old."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from vlm_adapters.cli.arguments import JsonOption
from vlm_adapters.cli.printing import line
from vlm_adapters.cli.tables import print_facts, print_rows

if TYPE_CHECKING:
    from vlm_adapters.inspection.doctor import Diagnosis, PackageReport


def command(*, as_json: JsonOption = False) -> None:
    """Show versions, accelerators, what every extra lacks, and what is too old.

    The exit code is 1 if a package is older than the library needs, or if one
    that it cannot do without is missing.
    """
    from vlm_adapters.inspection.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        typer.echo(json.dumps({**asdict(diagnosis), "faults": diagnosis.faults}, indent=2))
    else:
        _print(diagnosis)
    if diagnosis.faults or diagnosis.problem:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    accelerators = "\n".join(diagnosis.accelerators) or "none; models run on the CPU"
    facts = [
        ("vlm-adapters", diagnosis.version),
        ("python", diagnosis.python),
        ("system", diagnosis.system),
        ("accelerators", f"torch cannot be used: {diagnosis.problem}" if diagnosis.problem else accelerators),
    ]
    print_facts("Installation", facts)
    rows = [
        (each.name, each.installed, each.floor, ", ".join(each.extras), _state(each)) for each in diagnosis.packages
    ]
    print_rows("Packages", ("package", "installed", "needed", "for the extra", "state"), rows)
    lacking = [
        (extra, f"lacks {', '.join(missing)}" if missing else "complete") for extra, missing in diagnosis.extras.items()
    ]
    print_facts("Extras", lacking)
    if diagnosis.faults:
        names = " ".join(f'"{fault}"' for fault in diagnosis.faults)
        line()
        line(f"Too old or missing: pip install --upgrade {names}", style="red")


def _state(package: PackageReport) -> str:
    return {True: "good", False: "too old", None: "missing"}[package.is_good]
