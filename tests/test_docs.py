"""Every code block of the documentation is run as a reader would."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vlm_adapters import list_adapters
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters.testing.matrix import markdown

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
TUTORIAL = "docs/plugins.md"
"""Its blocks are files and commands of one project; test_tutorial.py installs and runs them."""
DOCS = sorted({path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} - {TUTORIAL})
PAGES = ("README.md", *DOCS, *PLUGIN_PAGES, "vlm_adapters/testing/__init__.py")


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "python")])
def test_the_python_of_the_documentation_runs(code: str, tmp_path: Path) -> None:
    assert run([sys.executable, "-c", code], tmp_path)


COMMANDS = dict.fromkeys(code for page in PAGES for code in blocks(page, "bash") if "adapters " in code)


@pytest.mark.parametrize("code", COMMANDS)
def test_the_commands_of_the_documentation_run_one_after_the_other(code: str, tmp_path: Path) -> None:
    for line in code.splitlines():
        if line.startswith("adapters "):
            printed = run(shlex.split(line), tmp_path)
            assert printed
            if line.startswith("adapters train quick "):  # a first training finds something
                (best,) = re.findall(r"best validation: mean IoU ([\d.]+)", printed)
                assert float(best) > 0.3


def test_every_link_within_the_repository_leads_somewhere() -> None:
    folders = ("docs", "examples", "plugins", ".github")
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    assert ROOT / "docs" / "plugins.md" in pages
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", DOCS)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    sources = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/**/test_*.py")]
    there = {name for file in sources for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    assert named <= there


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_make_targets_of_the_documentation_exist() -> None:
    targets = [line for page in PAGES for line in lines(page) if line.startswith("make ")]
    assert targets
    for line in targets:
        assert run([*line.split(), "--dry-run"], ROOT), line


def test_the_extras_of_the_documentation_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = [extra for extras in re.findall(r"pip install \"[\w.-]+\[([\w,]+)\]", text) for extra in extras.split(",")]
    assert {"qwen", "train", "sam", "supervision"} <= set(named) <= set(project["optional-dependencies"])


def test_every_line_of_shell_in_the_documentation_is_covered() -> None:
    assert {line.split()[0] for page in PAGES for line in lines(page)} <= {"adapters", "make", "pip"}


def test_the_readme_can_be_read_at_a_glance() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 95


def test_the_page_of_results_is_what_the_reports_give(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = ROOT / "examples" / "lab"
    monkeypatch.syspath_prepend(str(lab))
    written = runpy.run_path(str(lab / "write_results.py"))["page"]()
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == written


def test_the_support_matrix_is_what_the_suite_reported() -> None:
    support = json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    shown = text.split("<!-- adapters check --all -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == markdown(support["adapters"], support["versions"]).strip()
    assert list(support["adapters"]) == [e.name for e in list_adapters() if e.distribution == "vlm-adapters"]
    assert set(support["checks"]) == {check.__name__ for check in ALL_CHECKS}
