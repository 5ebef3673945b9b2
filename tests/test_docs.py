"""Every code block of the documentation is run as a reader would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`\n\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [m["code"] for m in BLOCK.finditer(text) if m["language"] == language and not m["file"]]


def run(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


PAGES = ("README.md", "plugins/qwen/README.md", "vlm_adapters/testing/__init__.py")


@pytest.mark.parametrize("code", [code for page in PAGES for code in blocks(page, "python")])
def test_the_python_of_the_documentation_runs(code: str, tmp_path: Path) -> None:
    assert run([sys.executable, "-c", code], tmp_path)


@pytest.mark.parametrize("line", [line for line in lines("README.md") if line.startswith("adapters ")])
def test_the_commands_of_the_readme_run(line: str, tmp_path: Path) -> None:
    assert run(line.split(), tmp_path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", [line for line in lines("README.md") if line.startswith("make ")])
def test_the_make_targets_of_the_readme_exist(line: str) -> None:
    assert run([*line.split(), "--dry-run"], ROOT)


@pytest.mark.parametrize("line", [line for line in lines("README.md") if line.startswith("pip ")])
def test_the_extras_of_the_readme_exist(line: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r"\[(\w+)\]", line)
    assert named in extras


def test_every_line_of_shell_in_the_readme_is_covered() -> None:
    assert {line.split()[0] for line in lines("README.md")} <= {"adapters", "make", "pip"}


def test_the_plugin_of_the_tutorial_is_listed_and_conforms(tmp_path: Path) -> None:
    page = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    project, site = tmp_path / "project", tmp_path / "site"
    for block in BLOCK.finditer(page):
        if block["file"]:
            path = project / block["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["code"], encoding="utf-8")
    assert lines("plugins/README.md") == ["pip install --editable .", "adapters list", "adapters check internvl"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--target", str(site), str(project)], tmp_path)
    listed = json.loads(run(["adapters", "list", "--json"], tmp_path, PYTHONPATH=str(site)))
    assert [entry["state"] for entry in listed if entry["distribution"] == "vlm-adapters-internvl"] == ["ready"]
    run(["adapters", "check", "internvl"], tmp_path, PYTHONPATH=str(site))
    (test,) = blocks("plugins/README.md", "python")
    (tmp_path / "test_internvl.py").write_text(test, encoding="utf-8")
    found = run([sys.executable, "-m", "pytest", "--collect-only", "-q", str(tmp_path)], tmp_path, PYTHONPATH=str(site))
    assert "check_rows_equal_eager" in found


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    folder = ROOT / "vlm_adapters" / "embedded" / "tiny-qwen2_5_vl"
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    rows = re.findall(
        r"^\| ((?:mean IoU|shape words)[^|]*) \| ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert rows
    assert {name: float(value) for name, value in rows} == {name: measured[name] for name, _ in rows}
