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
import warnings
from pathlib import Path

import pytest
import yaml

from vlm_adapters import list_adapters, open_dataset
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters.testing.matrix import markdown

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",  # tests run beside each other, and threads beyond the processors slow all down
}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [m["code"] for m in BLOCK.finditer(text) if m["language"] == language]


STAND_INS = {
    hub_id: f"tiny-{entry.name}"
    for entry in list_adapters()
    if entry.spec is not None and f"tiny-{entry.name}" in embedded_checkpoints()
    for hub_id in entry.spec.checkpoints
}
"""Published checkpoints, which no test can load, and the embedded tiny models of the same classes."""


LOADED = re.compile(r"((?:load_\w+|from_pretrained)\(\"|model=\"|--model )([\w.-]+/[\w.-]+)")


def runnable(code: str) -> str:
    """A block with a stand-in for the checkpoint that it loads, and the CPU for the GPU."""
    here = LOADED.sub(lambda m: m[1] + STAND_INS[m[2]], code)
    return here.replace('device="cuda"', 'device="cpu"').replace("--device cuda", "--device cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The files that blocks take for a reader's own: a photo, and a folder of photos."""
    (tmp_path / "photos").mkdir()
    for number, scene in enumerate(open_dataset("scenes:count=2,seed=4")):
        scene.image.save(tmp_path / "photos" / f"{number}.jpg")
    shutil.copyfile(tmp_path / "photos" / "0.jpg", tmp_path / "photo.jpg")
    return tmp_path


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


PYTHON = dict.fromkeys(code for page in PAGES for code in blocks(page, "python"))


@pytest.mark.parametrize("code", [code for code in PYTHON if "logging" not in code])
def test_the_python_of_the_documentation_runs(
    code: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    (photos / "block.py").write_text(runnable(code), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a photograph, the tiny models say that it is no scene
        runpy.run_path("block.py", run_name="__main__")  # a process of its own would import torch every time
    assert capsys.readouterr().out


@pytest.mark.parametrize("code", [code for code in PYTHON if "logging" in code])
def test_python_of_the_documentation_that_configures_its_process_runs(code: str, photos: Path) -> None:
    assert run([sys.executable, "-c", runnable(code)], photos)


COMMANDS = dict.fromkeys(code for page in PAGES for code in blocks(page, "bash") if "adapters " in code)


@pytest.mark.parametrize("code", COMMANDS)
def test_the_commands_of_the_documentation_run_one_after_the_other(code: str, photos: Path) -> None:
    for line in runnable(code).splitlines():
        if line.startswith("adapters "):
            printed = run(shlex.split(line), photos)
            assert printed
            if line.startswith("adapters train quick "):  # a first training finds something
                (best,) = re.findall(r"best validation: mean IoU ([\d.]+)", printed)
                assert float(best) > 0.3


@pytest.mark.parametrize("page", DOCS)
def test_a_page_says_where_the_tests_run_something_else(page: str) -> None:
    changed = any(runnable(code) != code for language in ("python", "bash") for code in blocks(page, language))
    said = "The tests run this with the embedded tiny model of the same class in place of the checkpoint"
    assert (said in (ROOT / page).read_text(encoding="utf-8")) == changed


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    words = (
        re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "", h)) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    )
    return {re.sub(r"[-\s]+", "-", each.strip().lower()) for each in words}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    folders = ("docs", "examples", "plugins", ".github")
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    assert ROOT / "docs" / "plugins.md" in pages
    broken = [
        f"{page.relative_to(ROOT)}: {link}#{anchor}"
        for page in pages
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([\w-]*))?\)", page.read_text(encoding="utf-8"))
        if not (target := page.parent / link if link else page).exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_no_link_of_the_site_leaves_its_folder() -> None:
    docs = ROOT / "docs"
    links = [
        (page, link)
        for page in docs.rglob("*.md")
        for link in re.findall(r"\]\(([^)#:\s]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 100
    assert [each for each in links if not (each[0].parent / each[1]).resolve().is_relative_to(docs)] == []


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


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = ROOT / "examples" / "lab"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_page_of_results_is_what_the_reports_give(lab: Path) -> None:
    written = runpy.run_path(str(lab / "write_results.py"))["page"]()
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == written
    for plot in lab.glob("results/*/*.png"):
        assert (ROOT / "docs" / "images" / plot.parent.name / plot.name).read_bytes() == plot.read_bytes()


def text_of(folder: str) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs" / folder).iterdir()}


def test_the_pages_of_the_families_are_what_the_plugins_give(lab: Path) -> None:
    module = runpy.run_path(str(lab / "write_families.py"))
    written = {
        name: text
        for plugin, specs in module["declared"]().items()
        for name, text in module["files_of"](plugin, specs).items()
    }
    assert len(written) > 30
    shown = text_of("families")
    assert shown.keys() == written.keys()
    for name, text in written.items():
        assert without_pixels(shown[name]) == without_pixels(text), name


def without_pixels(text: str) -> str:
    """A drawing without its image, whose bytes depend on the version of the JPEG library."""
    return re.sub(r"base64,[^\"]*", "", text)


def test_the_reference_has_every_public_name(lab: Path) -> None:
    assert text_of("reference") == runpy.run_path(str(lab / "write_reference.py"))["pages"]()


def test_the_list_for_language_models_is_that_of_the_pages(lab: Path) -> None:
    written = runpy.run_path(str(lab / "write_llms.py"))["text"]()
    assert (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8") == written


def test_every_page_is_in_the_nav_of_the_site() -> None:
    nav = re.findall(r"[\w/]+\.md", yaml.dump(yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text("utf-8"))["nav"]))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(nav) == sorted(pages)


def test_examples_of_docstrings_are_a_section_that_the_site_shows_as_code() -> None:
    sources = [*ROOT.glob("vlm_adapters/**/*.py"), *ROOT.glob("plugins/*/vlm_adapters_*/*.py")]
    assert [file.name for file in sources if re.search(r"^ *Example:$", file.read_text("utf-8"), re.MULTILINE)] == []


def test_the_support_matrix_is_what_the_suite_reported() -> None:
    support = json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    shown = text.split("<!-- adapters check --all -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == markdown(support["adapters"], support["versions"]).strip()
    assert list(support["adapters"]) == [e.name for e in list_adapters() if e.distribution == "vlm-adapters"]
    assert set(support["checks"]) == {check.__name__ for check in ALL_CHECKS}
