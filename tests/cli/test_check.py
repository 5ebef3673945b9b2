"""`adapters check`, over plugins that bring a fake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from typer.testing import CliRunner

import vlm_adapters.testing
from vlm_adapters.cli import app
from vlm_adapters.errors import OptionError, PluginError, UnknownAdapterError
from vlm_adapters.testing import AdapterCase, Check, CheckResult
from vlm_adapters.testing.fakes import FAKE_CASE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conftest import Site

CASE = "vlm_adapters.testing.fakes:FAKE_CASE"
PASSED = CheckResult("check_right", "It is right.", "passed", "", 0.25)
FAILED = CheckResult("check_wrong", "It is right.", "failed", "grid shapes: expected [(3, 8)], found [(8, 3)]", 1.5)
SKIPPED = CheckResult("check_other", "It is right.", "skipped", "FakeAdapter has no model", 0.0)


said_of: list[AdapterCase] = []
"""The cases that were checked."""
checks_run: list[str] = []
"""The checks that were run over the last of them."""


@pytest.fixture
def results(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[CheckResult]:
    """What the checks say; they themselves are tested elsewhere."""
    site.add_fake(CASE)
    said: list[CheckResult] = []
    said_of.clear()

    def run_checks(
        case: AdapterCase, checks: Sequence[Check], report: Callable[[CheckResult], None]
    ) -> list[CheckResult]:
        assert case.name == FAKE_CASE.name
        said_of.append(case)
        checks_run[:] = [check.__name__ for check in checks]
        sys.stdout.write("noise of a plugin")
        for result in said:
            report(result)
        return said

    monkeypatch.setattr(vlm_adapters.testing, "run_checks", run_checks)
    return said


def test_all_passed(results: list[CheckResult]) -> None:
    results += [PASSED, SKIPPED]
    done = CliRunner().invoke(app, ["check", "fake"])
    assert done.exit_code == 0
    assert done.stdout.split("\n\n")[1:] == [
        "check_other skipped: FakeAdapter has no model",
        "fake: 1 passed, 0 failed, 1 skipped\n",
    ]
    assert "noise" not in done.stdout


def test_the_versions_come_first(results: list[CheckResult]) -> None:
    results += [PASSED]
    first, _ = CliRunner().invoke(app, ["check", "fake"]).stdout.split("\n", 1)
    assert f"transformers {transformers.__version__}" in first.split(", ")


def test_one_failed(results: list[CheckResult]) -> None:
    results += [PASSED, FAILED]
    done = CliRunner().invoke(app, ["check", "fake"])
    assert done.exit_code == 1
    assert "\ncheck_wrong failed: grid shapes: expected [(3, 8)], found [(8, 3)]\n" in done.stdout
    assert done.stdout.endswith("fake: 1 passed, 1 failed, 0 skipped\n")


def test_json(results: list[CheckResult]) -> None:
    results += [replace(FAILED, seconds=2.0)]
    done = CliRunner().invoke(app, ["check", "fake", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == [
        {
            "check": "check_wrong",
            "title": FAILED.title,
            "state": "failed",
            "reason": FAILED.reason,
            "seconds": 2.0,
            "traceback": "",
        }
    ]


def test_only_the_checks_that_are_named_run(results: list[CheckResult]) -> None:
    results += [PASSED]
    arguments = ["--only", "check_orientation", "--only", "check_info"]
    assert CliRunner().invoke(app, ["check", "fake", *arguments]).exit_code == 0
    assert checks_run == ["check_orientation", "check_info"]
    with pytest.raises(OptionError, match=r"no check 'check_orientaton'. Did you mean check_orientation"):
        CliRunner().invoke(app, ["check", "fake", "--only", "check_orientaton"], catch_exceptions=False)


def test_the_traceback_of_a_failed_check_is_printed_on_request(results: list[CheckResult]) -> None:
    results += [replace(FAILED, traceback="Traceback (most recent call last):\n  somewhere\n")]
    assert "somewhere" not in CliRunner().invoke(app, ["check", "fake"]).stderr
    done = CliRunner().invoke(app, ["check", "fake", "--traceback"])
    assert "Traceback (most recent call last):\n  somewhere\n" in done.stderr


PROJECT = """
[project]
name = "acme-fake"
version = "2.0"
entry-points.vlm_adapters.fake = "acme_fake_project"
"""
PLUGIN = """
from vlm_adapters import AdapterSpec, hookimpl

@hookimpl
def adapter_specs():
    yield AdapterSpec("fake", "vlm_adapters.testing.fakes:FakeAdapter", case="vlm_adapters.testing.fakes:FAKE_CASE")
"""


def test_the_project_of_a_plugin_is_checked_without_being_installed(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "acme_fake_project.py").write_text(PLUGIN, encoding="utf-8")
    arguments = [sys.executable, "-m", "vlm_adapters", "check", str(tmp_path), "--only", "check_info", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    (report,) = json.loads(done.stdout)
    found = [(result["check"], result["state"]) for result in report["results"]]
    assert (report["adapter"], found) == ("fake", [("check_info", "passed")])


@pytest.mark.parametrize("text", [None, "[project]\nname = 'x'\n", "= 1", "project = 1"])
def test_a_folder_that_is_not_the_project_of_a_plugin_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["check", f"{tmp_path}/"])
    assert isinstance(done.exception, PluginError)
    assert "Give the folder of a plugin's project, whose pyproject.toml has [project.entry-points.vlm_adapters]" in str(
        done.exception
    )


def test_unknown_adapter(site: Site) -> None:
    site.add_fake(CASE)
    done = CliRunner().invoke(app, ["check", "fakes"])
    assert isinstance(done.exception, UnknownAdapterError)
    assert "Did you mean fake?" in str(done.exception)


def test_all_adapters_make_the_matrix(results: list[CheckResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", "fake")
    results += [replace(PASSED, check="check_orientation"), replace(FAILED, check="check_hidden_grids")]
    done = CliRunner().invoke(app, ["check", "--all"])
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| `fake`")]
    assert line.split("|")[2].strip() == "yes"
    assert "1 of 1: fake: 1 passed, 1 failed, 0 skipped\n" in done.stderr


def test_all_adapters_as_json(results: list[CheckResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_ADAPTERS_PLUGINS", "fake")
    results += [PASSED]
    done = CliRunner().invoke(app, ["check", "--all", "--json"])
    assert done.exit_code == 0
    (report,) = json.loads(done.stdout)
    assert report["versions"]["transformers"] == transformers.__version__
    assert (report["adapter"], [result["check"] for result in report["results"]]) == ("fake", ["check_right"])


@pytest.mark.parametrize("arguments", [[], ["fake", "--all"]])
def test_a_name_or_all_is_needed(arguments: list[str]) -> None:
    with pytest.raises(OptionError, match=r"Give the name of one adapter, .*or --all"):
        CliRunner().invoke(app, ["check", *arguments], catch_exceptions=False)


def test_device_and_dtype_say_where_the_checks_run(results: list[CheckResult]) -> None:
    results += [PASSED]
    assert CliRunner().invoke(app, ["check", "fake", "--device", "meta", "--dtype", "bf16"]).exit_code == 0
    (case,) = said_of
    assert (case.device, case.dtype) == ("meta", torch.bfloat16)
    weight = next(case.load().model.parameters())  # type: ignore[attr-defined]  # the protocol has no model
    assert (weight.device.type, weight.dtype) == ("meta", torch.bfloat16)
    assert next(case.load(dtype=torch.float32).model.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


def test_a_device_that_is_not_there_is_an_error() -> None:
    done = CliRunner().invoke(app, ["check", "llava", "--device", "xpu:7"])
    assert isinstance(done.exception, OptionError)
    assert "The device 'xpu:7' is not available" in str(done.exception)
