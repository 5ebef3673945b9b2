"""The check for people with a GPU runs, here with the CPU in its place, and says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "lab" / "gpu_check.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *arguments]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=given)


def test_tests_run_on_the_cpu_whatever_the_machine_has() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()


@pytest.mark.slow
def test_the_cpu_agrees_with_itself(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run("--device", "cpu", "--only", "kernels", "chain", "train", "memory", "--out", str(report))
    assert done.returncode == 0, done.stdout
    written = json.loads(report.read_text(encoding="utf-8"))
    assert {"device", "versions", "date", "seconds", "findings"} == written.keys()
    findings = written["findings"]
    assert {finding["part"] for finding in findings} == {"kernels", "chain", "train", "memory"}
    assert not [finding["what"] for finding in findings if finding["good"] is False]
    same = [finding for finding in findings if finding["part"] == "chain" and "float32" in finding["what"]]
    assert len(same) == 15
    assert {finding["found"] for finding in same} == {"0.0e+00"}
    not_run = {finding["what"].split(",")[0] for finding in findings if finding["good"] is None}
    assert not_run == {"rows beside flash_attention_2", "rows beside flash_attention_3", "28 layers"}


def test_without_a_gpu_one_line_says_so() -> None:
    done = run()
    assert done.returncode == 1
    assert "there is no CUDA device here" in done.stderr


def test_what_must_be_carried_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pydantic.py").write_text("raise ImportError('No module named pydantic')", encoding="utf-8")
    done = run(PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: No module named pydantic. Carry wheels of what is missing here")
    assert "Traceback" not in done.stderr


def test_an_old_transformers_is_one_line(tmp_path: Path) -> None:
    metadata = tmp_path / "transformers-4.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.1.0\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("--device", "cpu", PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: transformers 4.1.0 is installed, and releases older than")
    assert done.stderr.endswith("pip download --no-deps transformers.\n")
    assert "Traceback" not in done.stderr
