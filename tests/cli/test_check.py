"""`adapters check`, over plugins that bring a fake."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from typer.testing import CliRunner

import vlm_adapters.testing
from vlm_adapters.cli import app
from vlm_adapters.errors import OptionError, UnknownAdapterError
from vlm_adapters.testing import AdapterCase, CheckResult
from vlm_adapters.testing.fakes import FAKE_CASE

if TYPE_CHECKING:
    from conftest import Site

CASE = "vlm_adapters.testing.fakes:FAKE_CASE"
PASSED = CheckResult("check_right", "It is right.", "passed", "", 0.25)
FAILED = CheckResult("check_wrong", "It is right.", "failed", "grid shapes: expected [(3, 8)], found [(8, 3)]", 1.5)
SKIPPED = CheckResult("check_other", "It is right.", "skipped", "FakeAdapter has no model", 0.0)


said_of: list[AdapterCase] = []
"""The cases that were checked."""


@pytest.fixture
def results(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[CheckResult]:
    """What the checks say; they themselves are tested elsewhere."""
    site.add_fake(CASE)
    said: list[CheckResult] = []
    said_of.clear()

    def run_checks(case: AdapterCase) -> list[CheckResult]:
        assert case.name == FAKE_CASE.name
        said_of.append(case)
        sys.stdout.write("noise of a plugin")
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
        {"check": "check_wrong", "title": FAILED.title, "state": "failed", "reason": FAILED.reason, "seconds": 2.0}
    ]


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
    with pytest.raises(OptionError, match=r"one adapter, or --all"):
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
