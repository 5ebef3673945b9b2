"""What `adapters scaffold` writes: it lints, says what is left to write, and conforms once that is written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vlm_adapters.errors import OutputError, PluginError
from vlm_adapters.scaffold.family import Family
from vlm_adapters.scaffold.project import project_files, write_project
from vlm_adapters.testing import ALL_CHECKS

if TYPE_CHECKING:
    from conftest import Site

EXAMPLE = Path(__file__).parents[2] / "examples" / "write_a_plugin"
FEW_CHECKS = """
from vlm_adapters.testing import ALL_CHECKS
from vlm_adapters_video_llama_3.case import CASE

for check in ALL_CHECKS:
    if check.__name__ in ("check_cell_boxes", "check_orientation", "check_rows_equal_eager"):
        check(CASE)
"""
RUFF = [sys.executable, "-m", "ruff"]
NOT_FOR_STRANGERS = "COM812,CPY,D203,D213,EM,INP001,TC,TRY003"
"""Of all rules of ruff those that the library itself ignores, see its pyproject.toml."""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def families() -> list[Family]:
    """All that a plugin over transformers can be written for."""
    found = []
    for model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        with suppress(PluginError):
            found.append(Family.of(model_type))
    return found


def write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_the_project_of_every_family_passes_lint(tmp_path: Path) -> None:
    for family in families():
        write(project_files(family), tmp_path / family.model_type)
    assert len(list(tmp_path.iterdir())) > 50
    for command in (["check"], ["format", "--check"]):
        done = run([*RUFF, *command, "--no-cache", "."], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [["check"], ["check", "--select", "ALL", "--ignore", NOT_FOR_STRANGERS], ["format", "--check"]]
)
def test_a_project_passes_lint_under_other_rules_than_its_own(command: list[str], tmp_path: Path) -> None:
    write(project_files(Family.of("perception_lm")), tmp_path)
    done = run([*RUFF, *command, "--isolated", "--no-cache", "."], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_of_a_project(tmp_path: Path) -> None:
    written = write_project("perception_lm", tmp_path / "new" / "project")
    assert [path.relative_to(tmp_path / "new" / "project").as_posix() for path in written] == [
        "README.md",
        "vlm_adapters_perception_lm/__init__.py",
        "vlm_adapters_perception_lm/adapter.py",
        "vlm_adapters_perception_lm/case.py",
        "pyproject.toml",
        "tests/test_conformance.py",
    ]
    assert all(path.is_file() for path in written)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["project"]


def sentences(source: str) -> list[str]:
    """What the places say that are to be filled in."""
    return [
        ast.literal_eval(node.exc.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    ]


def test_the_places_to_fill_in_say_what_to_write() -> None:
    files = project_files(Family.of("perception_lm"))
    (layouts,) = sentences(files["vlm_adapters_perception_lm/adapter.py"])
    processor, grids = sentences(files["vlm_adapters_perception_lm/case.py"])
    assert layouts == (
        "Say in layouts() of adapter.py how images become cells: return for each image a list of one ImageLayout per "
        "grid, from the sizes that self.processor and self.model.config tell."
    )
    assert processor == (
        "Build a small PerceptionLMProcessor in tiny_processor() of case.py, with the chat template of the family's "
        "checkpoints. It takes: video_processor, image_processor, tokenizer, patch_size, chat_template, "
        "pooling_ratio=2."
    )
    assert grids == (
        "Write the family's rule in grids() of case.py without using the adapter: per grid one "
        "ExpectedGrid((rows, columns), (left, top, right, bottom))."
    )


def test_the_test_of_a_project_fails_with_what_to_write(tmp_path: Path) -> None:
    files = project_files(Family.of("perception_lm"))
    write(files, tmp_path)
    done = run([sys.executable, "-m", "pytest", "-q", "--tb=line", "-k", "not spawned", "tests"], tmp_path)
    failures = re.findall(r"^.*\.py:\d+: (.*)$", done.stdout, re.MULTILINE)
    skipped = [name for check in ALL_CHECKS if (name := check.__name__).startswith("check_video_")]
    skipped.remove("check_video_is_taken_or_refused")
    assert len(failures) == len(ALL_CHECKS) - len(skipped) - 1
    assert set(failures) == {f"NotImplementedError: {sentences(files['vlm_adapters_perception_lm/case.py'])[0]}"}


def test_the_tutorial_fills_in_what_is_written_for_its_family() -> None:
    files = project_files(Family.of("video_llama_3"))
    written = [path for path in EXAMPLE.rglob("*.*") if path.suffix in (".md", ".py", ".toml")]
    assert {path.relative_to(EXAMPLE).as_posix() for path in written} == set(files)
    for name in ("pyproject.toml", "tests/test_conformance.py"):
        assert (EXAMPLE / name).read_text(encoding="utf-8") == files[name]


def function(source: str, name: str) -> str:
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name]
    return ast.get_source_segment(source, found) or ""


def test_the_tiny_model_that_is_written_conforms_once_the_rest_is_filled_in(tmp_path: Path) -> None:
    """The tutorial's plugin, with the model that the scaffold builds in place of its own."""
    files = project_files(Family.of("video_llama_3"))
    package = "vlm_adapters_video_llama_3"
    adapter, case = ((EXAMPLE / package / name).read_text(encoding="utf-8") for name in ("adapter.py", "case.py"))
    load = function(files[f"{package}/case.py"], "load")
    for guessed, real in (("</s>", "<|im_end|>"), ("<image>", "<|image_pad|>")):
        load = load.replace(guessed, real)
    case = case.replace(function(case, "load"), load)
    write({**files, f"{package}/adapter.py": adapter, f"{package}/case.py": case}, tmp_path)
    done = run([sys.executable, "-c", FEW_CHECKS], tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_family_that_cannot_be_written(subtests: pytest.Subtests, tmp_path: Path) -> None:
    cases = [
        (
            "perception_ml",
            r"has no model type 'perception_ml' .* Did you mean perception_lm.*\? Give the model_type of",
        ),
        ("bert", r"has no model type 'bert' that reads images and text\. .* install a newer transformers\."),
        ("zzz", r"Known: .*\baria, .*"),
    ]
    for model_type, message in cases:
        with subtests.test(model_type=model_type):
            with pytest.raises(PluginError, match=message):
                write_project(model_type, tmp_path / "project")
            assert list(tmp_path.iterdir()) == []


def test_a_family_that_has_an_adapter(site: Site, tmp_path: Path) -> None:
    site.add_plugin("acme-toy")
    with pytest.raises(PluginError, match=r"The plugin 'toy' of acme-toy 1\.0 offers an adapter for toy"):
        write_project("toy", tmp_path / "project")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"has 1 entries, and nothing is overwritten\. Give a new folder\."):
        write_project("perception_lm", tmp_path)
    with pytest.raises(OutputError, match=r"mine\.txt cannot be used: Not a directory\. Give a new folder\."):
        write_project("perception_lm", tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
