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
from typing import Any

import pytest

from vlm_adapters import list_adapters
from vlm_adapters.embedded import embedded_checkpoints
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


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (heading,) = re.findall(r"^\| \| (`tiny-.*) \|$", text, re.MULTILINE)
    models = [name.strip("` ") for name in heading.split("|")]
    assert set(models) == set(embedded_checkpoints())
    rows = re.findall(r"^\| ((?:mean IoU|boundary F|shape words)[^|]*) \| ([\d. |]+) \|$", text, re.MULTILINE)
    assert rows
    for index, model in enumerate(models):
        files = [embedded_checkpoints()[model] / f"measured{part}.json" for part in ("", "_refiner")]
        measured = {name: value for file in files for name, value in json.loads(file.read_text("utf-8")).items()}
        shown = {name: float(values.split("|")[index]) for name, values in rows}
        assert shown == {name: measured[name] for name in shown}


def test_the_support_matrix_is_what_the_suite_reported() -> None:
    support = json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- adapters check --all -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == markdown(support["adapters"], support["versions"]).strip()
    assert list(support["adapters"]) == [e.name for e in list_adapters() if e.distribution == "vlm-adapters"]
    assert set(support["checks"]) == {check.__name__ for check in ALL_CHECKS}


def test_the_figures_of_the_heads_in_the_readme_are_those_that_were_measured() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"chose from labelled scenes reach.*?are found", text, re.DOTALL)
    measured = json.loads((embedded_checkpoints()["tiny-qwen2_5_vl"] / "measured_heads.json").read_text())
    found = {float(number) for number in re.findall(r"0\.\d{4}", told)}
    assert len(found) == 3
    assert found <= set(measured.values())
    (absent,) = re.findall(r"(\d+) % are found", told)
    assert int(absent) == round(100 * measured["found, labelled, absent things"])


def test_the_figures_of_training_in_the_readme_are_those_that_were_measured() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    folders = [embedded_checkpoints()[name] for name in ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")]

    def measured(folder: Path, what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / f"measured_{what}.json").read_text("utf-8"))
        return found

    cache, memory = measured(folders[0], "cache"), measured(folders[0], "cache_memory")
    large, small = cache["random, 0.3 B"], cache["tiny-qwen2_5_vl"]
    in_cache, in_loop = (large[f"seconds of an epoch, {way}"] for way in ("from the cache", "backbone in the loop"))
    assert f"takes {in_cache:.1f} s against {in_loop:.1f} s ({100 * large['cached / in the loop']:.1f} %)" in text
    share, work = small["cached / in the loop"], small["cached / in the loop, processor seconds"]
    assert f"it is {100 * share:.0f} % ({100 * work:.0f} % of the processor's time" in text
    operations = 100 * cache["arithmetic, 7 B"]["operations, from the cache / in the loop"]
    assert f"operations are {operations:.2f} % of the backbone's" in text
    recipes = [measured(folder, "recipe") for folder in folders]
    first, second, third = (f"{100 * found['share']:.1f} %" for found in recipes)
    assert f"{first}, {second} and {third} of the embedded decoders' mean IoU" in text
    seconds = [f"{found['seconds, to train']:.0f}" for found in recipes]
    assert f"after {seconds[0]}, {seconds[1]} and {seconds[2]} s of training" in text
    grown = 100 * (memory["most memory, last quarter / first"] - 1)
    assert f"needs {grown:.1f} % more memory than the first" in text
    large_ms, small_ms = (memory[f"median ms to read a sample, {size} cache"] for size in ("large", "small"))
    assert f"read in {large_ms:.2f} ms, against {small_ms:.2f} ms from a cache of 128" in text
