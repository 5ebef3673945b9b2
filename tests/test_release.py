"""What a release is made from agrees with itself."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPT = Path(".ci", "release", "version.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GIT = shutil.which("git") or "git"
OTHER_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run([GIT, *author, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, tmp_path / SCRIPT)
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "--message", "first")
    return tmp_path


def version_of(folder: Path) -> str:
    return str(runpy.run_path(str(folder / SCRIPT))["version"]())


def test_without_a_tag_the_version_is_that_of_development(clone: Path) -> None:
    assert version_of(clone) == "0.1.0.dev0"


def test_a_tag_on_the_commit_is_the_version(clone: Path) -> None:
    git(clone, "tag", "v0.1.0")
    assert version_of(clone) == "0.1.0"


def test_a_tag_on_an_earlier_commit_is_not_the_version(clone: Path) -> None:
    git(clone, "tag", "v0.1.0")
    git(clone, "commit", "--allow-empty", "--message", "second")
    assert version_of(clone) == "0.1.0.dev0"


def test_a_source_archive_has_the_version_that_it_was_built_with(clone: Path) -> None:
    (clone / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: vlm-adapters\nVersion: 0.2.0\n", encoding="utf-8")
    assert version_of(clone) == "0.2.0"


def test_the_conda_recipe_needs_what_the_project_needs() -> None:
    recipe = yaml.safe_load((ROOT / ".ci" / "release" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    pairs = (re.fullmatch(r"([\w-]+)(>=.+)", needed).groups() for needed in PROJECT["dependencies"])
    expected = {f"{OTHER_NAMES.get(name, name)} {floor}" for name, floor in pairs}
    assert set(recipe["requirements"]["run"]) == expected | {f"python {PROJECT['requires-python']}"}


def test_the_changelog_and_the_notes_have_the_number_of_the_next_release() -> None:
    number = runpy.run_path(str(ROOT / SCRIPT))["WITHOUT_TAG"].removesuffix(".dev0")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{number}]" in changelog
    assert (ROOT / ".ci" / "release" / f"notes-{number}.md").is_file()


def test_the_publishing_workflow_tries_every_python_that_is_named() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    named = {match[1] for item in PROJECT["classifiers"] if (match := re.search(r":: (3\.\d+)$", item))}
    assert set(workflow["jobs"]["wheel"]["strategy"]["matrix"]["python"]) == named
