"""The results of the lab: one JSON file per measurement, with its command, date and machine, and how they are shown."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm_adapters.data.files import write_json

RESULTS = Path(__file__).parent / "results"


def write_report(file: Path, numbers: Mapping[str, object]) -> None:
    """Write numbers with what a reader needs to place them."""
    command = shlex.join(["python", *sys.argv])
    write_json(file, {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), **numbers})


def read_report(name: str) -> dict[str, Any]:
    """The report in the file `NAME.json` of the results."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def machine() -> str:
    """The machine in words, such as `2 cores of AMD EPYC`."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpus.read_text(encoding="utf-8")) if cpus.is_file() else []
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def sources(*names: str) -> str:
    """Where the numbers of a section come from, one line per report."""
    lines = []
    for name in names:
        report = read_report(name)
        command = re.sub(r" --(report|out) \S+", "", report["command"])
        command = re.sub(r"--refined \S+", "--refined DIR", command)  # what train_tiny_refiner.py wrote
        machine, note = report.get("machine") or report["device"], report.get("note", "")
        file = f"examples/lab/results/{name}.json"
        lines.append(f"* `{command}`: `{file}`, {report['date']}, {machine}.{' ' * bool(note)}{note}")
    return "\n".join(lines)
