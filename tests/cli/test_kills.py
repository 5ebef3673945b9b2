"""The trials of the lab in small: a command that was killed anywhere ends, run again, as an unbroken one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "lab" / "kills.py"


def test_a_killed_command_ends_as_an_unbroken_one_and_leaves_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--commands", "data convert", "--kills", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1]
    assert re.search(r"trials: 4, killed: [1-9].*equal after the next run: 4, leftovers after the next run: 0", row), (
        row
    )
