"""Every code block of the documentation is run as a reader would."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vlm_adapters import list_adapters
from vlm_adapters.testing import ALL_CHECKS, CheckResult
from vlm_adapters.testing.matrix import AdapterReport, markdown

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [m["code"] for m in BLOCK.finditer(text) if m["language"] == language]


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


PLUGIN_PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/README.md"))
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
PAGES = ("README.md", *DOCS, *PLUGIN_PAGES, "vlm_adapters/testing/__init__.py")


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "python")])
def test_the_python_of_the_documentation_runs(code: str, tmp_path: Path) -> None:
    assert run([sys.executable, "-c", code], tmp_path)


@pytest.mark.parametrize("code", [code for code in blocks("README.md", "bash") if "adapters " in code])
def test_the_commands_of_the_readme_run_one_after_the_other(code: str, tmp_path: Path) -> None:
    for line in code.splitlines():
        if line.startswith("adapters "):
            assert run(line.split(), tmp_path)


@pytest.mark.parametrize("page", DOCS)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    sources = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/**/test_*.py")]
    there = {name for file in sources for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    assert named <= there


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", [line for line in lines("README.md") if line.startswith("make ")])
def test_the_make_targets_of_the_readme_exist(line: str) -> None:
    assert run([*line.split(), "--dry-run"], ROOT)


@pytest.mark.parametrize("line", [line for line in lines("README.md") if line.startswith("pip ")])
def test_the_extras_of_the_readme_exist(line: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r"\[([\w,]+)\]", line)
    assert set(named.split(",")) <= set(extras)


def test_every_line_of_shell_in_the_readme_is_covered() -> None:
    assert {line.split()[0] for line in lines("README.md")} <= {"adapters", "make", "pip"}


def test_the_page_of_results_is_what_the_reports_give(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = ROOT / "examples" / "lab"
    monkeypatch.syspath_prepend(str(lab))
    written = runpy.run_path(str(lab / "write_results.py"))["page"]()
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == written


def test_the_support_matrix_is_what_the_suite_reported() -> None:
    reports = [
        AdapterReport(
            report["adapter"],
            tuple(CheckResult(**result) for result in report["results"]),
            report.get("versions", {}),
        )
        for report in json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))
    ]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- adapters check --all -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == markdown(reports).strip()
    assert [report.adapter for report in reports] == [
        e.name for e in list_adapters() if e.distribution == "vlm-adapters"
    ]
    for report in reports:
        assert {result.check for result in report.results} == {check.__name__ for check in ALL_CHECKS}
