"""The check for people with a GPU runs, here with the CPU in its place, and says so where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "gpu_check.py"


@pytest.mark.slow
def test_the_cpu_agrees_with_itself() -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" ok ") == 24
    assert done.stdout.count("0.00e+00") == 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_said() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert "there is no CUDA device here" in done.stderr
