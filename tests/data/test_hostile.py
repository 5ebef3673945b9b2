"""A share of the hostile inputs of the lab, each in a process of its own under limits of time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "lab" / "hostile_data.py"


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is limited and read as Linux does")
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_inputs_are_typed_errors_or_read_rightly(seed: int) -> None:
    command = [sys.executable, str(SCRIPT), "--every", "17", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "anything else: 0\n" in done.stdout
