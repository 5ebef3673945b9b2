"""`make compatibility`: when an environment is built, what is read from a run, and the page."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

PLAIN = "import warnings\nimport pytest\ndef test_right():\n    warnings.warn('use b', FutureWarning)\n"
TESTS = PLAIN + "def test_wrong():\n    assert False\n@pytest.mark.skip\ndef test_left_out():\n    pass\n"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, whose environments stand in a folder of the test's."""
    place = Path(__file__).parents[1] / ".ci" / "compatibility.py"
    spec = importlib.util.spec_from_file_location("compatibility", place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compatibility", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILT", tmp_path)
    return module


def result(script: Any, **fields: Any) -> Any:
    values = {"versions": {"transformers": "5.16.0"}, "suite": {"passed": 58, "failed": 0, "skipped": 1}}
    values |= {"tests": {"passed": 9, "failed": 0, "skipped": 0}, "failures": [], "warnings": [], "needs": []}
    return script.Result(**{"stack": "oldest", "date": "2026-11-27", **values, **fields})


def test_an_environment_sees_this_code_and_what_is_installed_below(script: Any) -> None:
    python = script.build("floor", "")
    command = [python, "-c", "import sys, torch, vlm_adapters as v; print(sys.prefix, torch.__file__, v.__file__)"]
    prefix, torch, code = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert Path(prefix) == script.BUILT / "floor"
    assert not torch.startswith(prefix)
    assert Path(code).parents[1] == script.ROOT


def test_an_environment_is_built_anew_only_when_its_pins_change(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []

    def pretend(command: list[object], **_: object) -> None:
        if "venv" in command:
            venv.create(Path(str(command[-1])))
        else:
            installed.append(Path(str(command[-1])).read_text(encoding="utf-8"))

    monkeypatch.setattr(script.subprocess, "run", pretend)
    for pins in ("peft==0.19.1\n", "peft==0.19.1\n", "peft==0.20.0\n"):
        assert script.build("floor", pins) == script.BUILT / "floor" / "bin" / "python"
    assert installed == ["peft==0.19.1\n", "peft==0.20.0\n"]


def test_what_tests_did_is_counted_and_their_warnings_are_listed(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(TESTS, encoding="utf-8")
    counts, failures, warnings = script.test(Path(sys.executable), tmp_path / "report.xml", str(file))
    assert counts == {"passed": 1, "failed": 1, "skipped": 1}
    assert [failure.rsplit(".", 1)[-1] for failure in failures] == ["test_wrong"]
    assert warnings == ["FutureWarning: use b"]


def test_tests_that_cannot_start_are_a_failure(script: Any, tmp_path: Path) -> None:
    counts, (failure,), _ = script.test(Path(sys.executable), tmp_path / "report.xml", "--no-such-option")
    assert counts["failed"] == 1
    assert "pytest" in failure


def test_the_page_has_a_row_for_every_stack(script: Any) -> None:
    text = script.page([result(script), result(script, stack="pinned", versions={"transformers": "5.24.0"})])
    assert "| oldest | 5.16.0 | - | - | - | - | - | 58 passed, 1 skipped | 9 passed | 2026-11-27 |\n" in text
    assert "| pinned | 5.24.0 |" in text
    assert "## What failed\n\nNothing.\n" in text


def test_the_page_reports_failures_warnings_and_what_families_need(script: Any) -> None:
    needs = ["`molmo2` needs transformers>=5.20"]
    failures, warnings = ["llava, check_threads: raised"], ["FutureWarning: use b"]
    text = script.page([result(script, failures=failures, warnings=warnings, needs=needs)])
    assert "\n* oldest: llava, check_threads: raised\n" in text
    assert "\n* oldest: `FutureWarning: use b`\n" in text
    assert "\n* oldest: `molmo2` needs transformers>=5.20\n" in text
