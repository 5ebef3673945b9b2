"""The range of releases that was run, what is said outside of it, and that every place names the same one."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vlm_adapters import load_adapter
from vlm_adapters.errors import AdapterError, CaptureError, CheckpointError, PluginError
from vlm_adapters.registry import versions
from vlm_adapters.registry.versions import (
    FLOOR,
    NEWEST_RUN,
    NewerReleaseWarning,
    check_transformers,
    is_older,
    typed_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Install = Callable[[str], None]

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, DEVELOPMENT = PYPROJECT["project"], PYPROJECT["dependency-groups"]["dev"]
PINS = [
    line
    for line in (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def requirements(lines: Iterable[str]) -> list[Requirement]:
    return [one for one in map(Requirement, lines) if one.name != "vlm-adapters"]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install("5.99.0")` makes the metadata of transformers say so, in a process that has warned of nothing yet."""
    real = importlib.metadata.version

    def pretend(number: str) -> None:
        monkeypatch.setattr(versions, "version", lambda name: number if name == "transformers" else real(name))

    monkeypatch.setattr(versions, "_warned", set())
    return pretend


@pytest.mark.parametrize("number", [FLOOR, NEWEST_RUN, f"{NEWEST_RUN}.dev0"])
def test_a_release_in_the_range_is_taken_in_silence(number: str, install: Install) -> None:
    install(number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_transformers()


def test_an_older_release_than_the_floor_is_refused(subtests: pytest.Subtests, install: Install) -> None:
    for number in ["4.57.6", "5.0.0", "5.15.1", "5.9"]:
        with subtests.test(number=number):
            install(number)
            with pytest.raises(
                PluginError, match=rf'^transformers {number} is installed, .* "transformers>={FLOOR}"\.$'
            ):
                load_adapter("tiny-qwen2_5_vl")


OLD = """
import sys
from vlm_adapters.registry import versions
versions.version = lambda name: "4.57.6"
sys.modules["transformers"] = type(sys)("transformers")  # it has none of the names that are imported
"""


def test_names_that_an_old_release_lacks_are_a_typed_error() -> None:
    script = OLD + "try:\n    from vlm_adapters import TransformersBackbone\n"
    script += "except versions.PluginError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("transformers 4.57.6 is installed, and releases older than")


def test_names_that_an_old_release_lacks_are_one_line_of_the_command_line() -> None:
    script = OLD + "sys.argv = ['adapters', 'info', 'tiny-llava']\nfrom vlm_adapters.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: transformers 4\.57\.6 is installed, and releases older than [^\n]*\n", done.stderr)


@pytest.mark.parametrize("number", ["5.99.0", "5.100", "6.0.0rc1"])
def test_a_newer_release_than_was_run_says_so_once(number: str, install: Install) -> None:
    install(number)
    with pytest.warns(NewerReleaseWarning, match=rf"{number} is newer than {NEWEST_RUN}.*docs/compatibility\.md"):
        check_transformers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_transformers()


def test_the_command_line_says_so_in_one_line() -> None:
    script = """
import sys
from vlm_adapters import cli
from vlm_adapters.registry import versions
versions.NEWEST_RUN = "1.0.0"
sys.argv = ["adapters", "info", "tiny-llava"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if "newer than" in line]
    assert re.fullmatch(r"warning: transformers \S+ is newer than 1\.0\.0, .* or install transformers==1\.0\.0\.", line)
    assert "warnings.warn" not in done.stderr


def test_without_transformers_there_is_nothing_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_installed", lambda _: None)
    check_transformers()


def test_whatever_a_library_raises_becomes_one_typed_line_with_both_versions(install: Install) -> None:
    install("5.99.0")
    with pytest.raises(CheckpointError) as caught, typed_errors("Loading tiny-llava", CheckpointError):
        raise IndexError("tuple index\n  out of range.")
    assert str(caught.value) == (
        "Loading tiny-llava failed with IndexError: tuple index out of range. Found transformers 5.99.0; "
        f"the newest that was run is {NEWEST_RUN} (docs/compatibility.md)."
    )
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_long_message_is_cut_and_an_empty_one_leaves_the_type() -> None:
    with pytest.raises(CaptureError, match=r"RuntimeError: x{300}\. Found"), typed_errors("A pass", CaptureError):
        raise RuntimeError("x" * 10_000)
    with (
        pytest.raises(CaptureError, match=r"failed with KeyError\. Found"),
        typed_errors("A pass", CaptureError),
    ):
        raise KeyError


def test_errors_of_the_library_of_memory_and_of_the_user_pass_unchanged(subtests: pytest.Subtests) -> None:
    cases: list[BaseException] = [
        CheckpointError("no such folder"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        KeyboardInterrupt(),
        SystemExit(2),
    ]
    for error in cases:
        with subtests.test(error=error):
            with pytest.raises(type(error)) as caught, typed_errors("A pass", AdapterError):
                raise error
            assert caught.value is error


def test_the_declared_floor_is_the_one_that_is_checked() -> None:
    declared = next(one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "transformers")
    assert {(one.operator, Version(one.version)) for one in declared.specifier} == {(">=", Version(FLOOR))}


def test_every_declared_bound_is_one_that_was_run() -> None:
    text = (ROOT / ".ci" / "compatibility" / "oldest.txt").read_text(encoding="utf-8")
    run = {one.name: {clause.version for clause in one.specifier} for one in requirements(text.splitlines()[1:])}
    extras = [
        PROJECT["optional-dependencies"][name]
        for name in ("qwen", "sam", "supervision", "data", "parquet", "datasets", "web", "train")
    ]
    peft = [line for line in DEVELOPMENT if line.startswith("peft")]
    for declared in requirements(itertools.chain(PROJECT["dependencies"], *extras, peft)):
        for clause in (one for one in declared.specifier if one.operator == ">="):
            assert {Version(version) for version in run[declared.name]} == {Version(clause.version)}, declared


def test_the_page_shows_the_floor_and_the_newest_release_and_that_they_hold() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", page, re.MULTILINE))
    assert (shown["oldest"], shown["pinned"]) == (FLOOR, NEWEST_RUN)
    assert page.split("## What failed")[1].split("## ")[0].strip() == "Nothing."


def test_the_newest_release_that_was_run_is_the_pinned_one() -> None:
    assert f"transformers=={NEWEST_RUN}" in PINS


def test_every_pin_is_one_public_version_that_any_machine_can_install() -> None:
    for pin in PINS:
        (clause,) = Requirement(pin).specifier
        assert clause.operator == "==", pin
        assert Version(clause.version).public == clause.version, pin


def test_every_requirement_has_a_pin_that_it_allows() -> None:
    pinned = {one.name.lower().replace("_", "-"): one.specifier for one in map(Requirement, PINS)}
    extras = [
        line
        for name in ("data", "qwen", "sam", "supervision", "train")
        for line in PROJECT["optional-dependencies"][name]
    ]
    for requirement in requirements(PROJECT["dependencies"] + extras + DEVELOPMENT):
        (clause,) = pinned[requirement.name]
        assert requirement.specifier.contains(clause.version), requirement


def test_no_release_is_declared_too_new() -> None:
    extras = PROJECT["optional-dependencies"].values()
    declared = map(Requirement, itertools.chain(PROJECT["dependencies"], *extras, DEVELOPMENT))
    closed = [str(one) for one in declared if any(clause.operator in ("<", "<=", "~=") for clause in one.specifier)]
    assert closed == []


def test_a_package_is_older_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [("1.2.0", "1.15", True), ("1.14.9", "1.15", True), ("1.15.0", "1.15", False), ("2.0", "1.15", False)]
    for found, release, expected in cases:
        monkeypatch.setattr("vlm_adapters.registry.versions.version", lambda _, found=found: found)
        assert is_older("accelerate", release) is expected, (found, release)


def test_a_package_that_is_not_installed_is_not_older() -> None:
    assert not is_older("no-such-package-here", "1.15")


def test_what_is_pinned_runs_on_the_first_release_of_the_oldest_python() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    refused = {
        pin.name: needed
        for pin in map(Requirement, PINS)
        if (needed := importlib.metadata.metadata(pin.name)["Requires-Python"])
        and Version(oldest) not in SpecifierSet(needed)
    }
    assert not refused  # `make demo` would fail there
