"""What the examples of runs over many images show."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_adapters import bulk

EXAMPLES = Path(__file__).parents[2] / "examples"
RAY, REPLAY = EXAMPLES / "ray_many_images.py", EXAMPLES / "replay_answers.py"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_loses_no_image_where_an_actor_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "ray.json"
    command = [sys.executable, str(RAY), "--images", "100", "--json", str(file)]
    assert subprocess.run(command, check=False, capture_output=True, timeout=600).returncode == 0
    found = json.loads(file.read_text())
    assert found["columns"]["distinct"] == found["columns"]["rows"] == 100
    assert found["columns"]["errors"] == found["shards"]["errors"] == 1
    assert found["shards"]["rows"] == 99
    assert found["shards"]["equal to one process"]
    assert (
        min(found["columns"]["processes"], found["shards"]["processes"]) >= 3
    )  # two, and one in the killed one's place


def test_answers_of_an_engine_are_grounded_by_their_tokens(tmp_path: Path) -> None:
    command = [sys.executable, str(REPLAY), "tiny-llava", str(tmp_path / "answers")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "6 answers, 0 failed" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "answers" / "answers.jsonl").read_text().splitlines()]
    found = list(bulk.read_results(tmp_path / "answers" / "grounded"))
    assert [row["answer"]["ids"] for _, row in found] == [line["ids"] for line in lines]
    assert all(line["ids"] for line in lines)
