"""Run the library on every stack that it admits, and write docs/compatibility.md: `make compatibility`.

Environments stand in `.compatibility/`. Those of `overlays` lie over the environment that runs this script: they hold
the pins of `.ci/compatibility/NAME.txt` alone and take all else from below, torch too. `oldest` is whole: it has every
lower bound that pyproject.toml declares. An environment is built anew when its pins change.

    python .ci/compatibility.py            # every stack, all families: about half an hour
    python .ci/compatibility.py --quick    # floor and newest: a family per layout, recorded maps, README
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS, BUILT = ROOT / ".ci" / "compatibility", ROOT / ".compatibility"
CODE = [ROOT, *(path.parent for path in sorted(ROOT.glob("plugins/*/vlm_adapters_*")))]
ONE_PER_LAYOUT = ("cogvlm", "deepseek_vl", "fuyu", "gemma3", "internvl", "llava", "llava_onevision", "qwen2_5_vl")
QUICK_TESTS = ("plugins/tests/test_recorded_maps.py", "tests/test_docs.py", "-k", "recorded or python_of_the")
TESTS = (
    *("plugins/tests/test_recorded_maps.py", "plugins/tests/test_examples.py", "tests/test_docs.py"),
    *("-k", "recorded or examples or python_of_the or commands_of_the"),
)
COLUMNS = ("transformers", "tokenizers", "huggingface-hub", "peft", "torch", "python")
INTRODUCTION = """# Compatibility

What `make compatibility` ran. *oldest*: every lower bound that `pyproject.toml` declares; *middle*: a release about
halfway; *pinned*: `.ci/constraints.txt`, which `make demo` and `make test` install; *newest*, where it differs: what
the registry offered. The bounds are open upwards: on a newer transformers than is shown here `load_adapter` says so
once, and `adapters check NAME` tells whether it holds.
"""
FOLLOWS = ("transformers", "tokenizers", "huggingface-hub", "peft", "accelerate")
"""What the newest stack renews; torch stays as it is installed."""
PROCESSES = 2
"""How many run beside each other, as in `make test`."""
WARNING = re.compile(r"^ +(?P<file>\S+?):\d+: (?P<kind>\w*Warning): (?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How one stack did: its versions, how many checks and tests passed, and what is to be read."""

    stack: str
    date: str
    versions: dict[str, str]
    suite: dict[str, int]
    tests: dict[str, int]
    failures: list[str]
    warnings: list[str]
    needs: list[str]


def newest_pins() -> str | None:
    """What a fresh environment would get beyond the pinned one; None where the registry cannot be reached."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", "--upgrade", *FOLLOWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    found = [package["metadata"] for package in json.loads(done.stdout)["install"]]
    return "".join(f"{package['name']}=={package['version']}\n" for package in found)


def build(stack: str, pins: str) -> Path:
    """The interpreter of an environment with these pins, made unless it is there."""
    folder = BUILT / stack
    stamp, python = folder / "pins", folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == pins:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    whole = stack == "oldest"
    subprocess.run([sys.executable, "-m", "venv", *([] if whole else ["--without-pip"]), folder], check=True)
    listed = folder / "pins.txt"
    listed.write_text(pins, encoding="utf-8")
    paths = {"base": str(folder), "platbase": str(folder)}
    over = Path(sysconfig.get_path("purelib", vars=paths)) / "vlm_adapters_below.pth"
    if whole:
        renewed = ["install", "--quiet", "--upgrade", "--constraint", ROOT / ".ci" / "constraints.txt", "pip"]
        subprocess.run([python, "-m", "pip", *renewed], check=True)  # older ones know no groups
        pip = [python, "-m", "pip", "install", "--quiet", "--constraint", listed, "--editable", f"{ROOT}[all]"]
        pip += ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
    else:
        below = sysconfig.get_path("purelib")
        lines = [*map(str, CODE), f"import site; site.addsitedir({below!r})"]
        over.write_text("\n".join(lines) + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--ignore-installed"]
        pip += ["--requirement", listed]
        program = folder / "bin" / "adapters"
        program.write_text(f"#!{python}\nfrom vlm_adapters.cli import main\nmain()\n", encoding="utf-8")
        program.chmod(0o755)
    if pins:
        subprocess.run(pip, check=True)
    stamp.write_text(pins, encoding="utf-8")
    return python


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in an environment, whose warnings are to be read and fail nothing."""
    environment = {**os.environ, "PYTHONWARNINGS": "default", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [str(python), "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def check(python: Path, families: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Run the conformance suite over families: how many checks did how, and which failed."""
    counts, failures = {"passed": 0, "failed": 0, "skipped": 0}, []
    with ThreadPoolExecutor(PROCESSES) as pool:
        ran = list(pool.map(lambda family: run(python, "vlm_adapters", "check", family, "--json"), families))
    for family, done in zip(families, ran, strict=True):
        try:
            results = json.loads(done.stdout)
        except ValueError:
            results = [{"state": "failed", "check": "adapters check", "reason": done.stderr.strip()[-300:]}]
        for result in results:
            counts[result["state"]] += 1
            if result["state"] == "failed":
                failures.append(f"{family}, {result['check']}: {result['reason']}")
    return counts, failures


def test(python: Path, report: Path, *arguments: str) -> tuple[dict[str, int], list[str], list[str]]:
    """Run tests: how many did how, which failed, and the warnings that were given."""
    options = ["-q", "-n", str(PROCESSES), "-W", "default", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = run(python, "pytest", *options, *arguments)
    if not report.is_file():
        return {"passed": 0, "failed": 1, "skipped": 0}, [f"pytest: {done.stdout[-300:]}"], []
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - a report of our own
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    report.unlink()
    counts = {"passed": len(cases) - len(bad) - skipped, "failed": len(bad), "skipped": skipped}
    found = {f"{match['kind']}: {match['text']}" for match in WARNING.finditer(done.stdout + done.stderr)}
    return counts, [f"{case.get('classname')}.{case.get('name')}" for case in bad], sorted(found)


def run_stack(stack: str, pins: str, *, quick: bool) -> Result:
    """Build a stack, and run everything in it."""
    python = build(stack, pins)
    asked = "import json; from vlm_adapters.registry.versions import versions; print(json.dumps(versions()))"
    versions = json.loads(subprocess.run([python, "-c", asked], capture_output=True, check=True, cwd=BUILT).stdout)
    listed = json.loads(run(python, "vlm_adapters", "list", "--json").stdout)
    ours = {entry["name"]: entry["state"] for entry in listed if entry["distribution"] == "vlm-adapters"}
    families = [name for name, state in ours.items() if state == "ready" and (name in ONE_PER_LAYOUT or not quick)]
    needs = [f"`{name}` {state}" for name, state in ours.items() if state != "ready"]
    suite, failures = check(python, families)
    what = QUICK_TESTS if quick else TESTS
    tests, failed, warned = test(python, BUILT / stack / "tests.xml", *what)
    return Result(stack, f"{datetime.now(UTC):%Y-%m-%d}", versions, suite, tests, failures + failed, warned, needs)


def page(results: Sequence[Result]) -> str:
    """The page of the documentation, of what ran."""
    head = ["stack", *COLUMNS, "conformance suite, all families", "recorded maps, README, examples", "date"]
    lines = [INTRODUCTION, f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        cells = [result.stack, *(result.versions.get(name, "-") for name in COLUMNS)]
        lines.append(f"| {' | '.join([*cells, counted(result.suite), counted(result.tests), result.date])} |")
    lines += ["", f"The machine: {machine()}.", "", "## What failed", ""]
    lines += [f"* {result.stack}: {failure}" for result in results for failure in result.failures] or ["Nothing."]
    lines += ["", "## Families that need a newer release", ""]
    lines += [f"* {result.stack}: {', '.join(result.needs)}" for result in results if result.needs] or ["None."]
    lines += ["", "## Warnings of dependencies", "", "They fail nothing here; beside the pinned versions they do.", ""]
    lines += [f"* {result.stack}: `{text}`" for result in results for text in result.warnings] or ["None."]
    return "\n".join(lines) + "\n"


def counted(counts: dict[str, int]) -> str:
    """`57 passed, 1 skipped`: what there is none of is left out."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "passed")


def machine() -> str:
    """The machine in words."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpus.read_text(encoding="utf-8")) if cpus.is_file() else []
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}, no accelerator"


def stacks_to_run(*, quick: bool) -> dict[str, str]:
    """Name and pins of every stack, the oldest first; `newest` where the registry has newer releases than the pins."""
    named = ["floor"] if quick else ["oldest", "middle"]
    stacks = {name: (PINS / f"{name}.txt").read_text(encoding="utf-8") for name in named}
    if not quick:
        stacks["pinned"] = ""
    newest = newest_pins()
    if newest is None:
        print("The registry cannot be reached, so the newest releases are not run.")
    elif newest:
        stacks["newest"] = newest
    return stacks


def main() -> int:
    """Run the stacks; the exit code is 1 if anything failed in one of them."""
    parser = argparse.ArgumentParser(description="Run the library on every stack that it admits.")
    parser.add_argument("--quick", action="store_true", help="floor and newest, a few minutes; writes no page")
    parser.add_argument("stacks", nargs="*", help="these alone; the page shows the others as they last ran")
    chosen = parser.parse_args()
    BUILT.mkdir(exist_ok=True)
    stacks, results = stacks_to_run(quick=chosen.quick), []
    for stack, pins in stacks.items():
        kept = BUILT / stack / "result.json"
        if chosen.stacks and stack not in chosen.stacks:
            results += [Result(**json.loads(kept.read_text(encoding="utf-8")))] if kept.is_file() else []
            continue
        result = run_stack(stack, pins, quick=chosen.quick)
        print(f"{stack}, {result.versions}: suite {counted(result.suite)}; tests {counted(result.tests)}")
        print("\n".join(result.failures), flush=True)
        results.append(result)
        if not chosen.quick:
            kept.write_text(json.dumps(asdict(result)), encoding="utf-8")
    if not chosen.quick:
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "compatibility.md").write_text(page(results), encoding="utf-8")
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
