"""`adapters evaluate` by two processes, and killed: the records are those of one complete run, and of `ground`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vlm_adapters import GroundedVLM
from vlm_adapters.cli import app
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.evaluation.metrics import mask_iou

COUNT = 7
ARGUMENTS = ["evaluate", "tiny-qwen2_5_vl", f"scenes:count={COUNT},seed={HELD_OUT_SEED}", "--protocol", "packed"]
ARGUMENTS += ["--batch-size", "2", "--device", "cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMAND = [str(Path(sys.executable).with_name("adapters")), *ARGUMENTS]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes: the rounding of sums depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def evaluate(out: Path) -> None:
    """Run the command in this process."""
    done = CliRunner().invoke(app, [*ARGUMENTS, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("complete")
    evaluate(out)
    return out


def test_the_mean_iou_is_that_of_ground(complete: Path) -> None:
    vlm, ious = GroundedVLM.from_pretrained("tiny-qwen2_5_vl", device="cpu"), []
    for scene in Scenes(COUNT, seed=HELD_OUT_SEED):
        (grounding,) = vlm.ground_all([scene.prompt])
        ious += [mask_iou(found.mask, truth) for found, truth in zip(grounding.phrases, scene.masks, strict=True)]
    numbers = json.loads((complete / "card.json").read_text(encoding="utf-8"))["numbers"]
    (found,) = [number["value"] for number in numbers if number["metric"] == "mIoU"]
    assert found == pytest.approx(np.mean(ious), abs=1e-3)  # other batches round differently: a pixel here and there


def test_two_processes_count_every_sample_once_and_give_the_same_records(complete: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, *COMMAND, "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    assert json.loads(done.stdout)["processes"] == 2
    assert sorted(path.name for path in (tmp_path / "partial_results").iterdir()) == [
        "process-000.jsonl",
        "process-001.jsonl",
    ]
    assert sum(path.read_bytes().count(b"\n") - 1 for path in (tmp_path / "partial_results").iterdir()) == 4
    assert (tmp_path / "records.jsonl").read_bytes() == (complete / "records.jsonl").read_bytes()


def test_a_run_that_was_killed_is_resumed(complete: Path, tmp_path: Path) -> None:
    part = tmp_path / "partial_results" / "process-000.jsonl"
    with subprocess.Popen([*COMMAND, "--out", str(tmp_path)], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not (part.exists() and part.read_bytes().count(b"\n") > 2):
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
    kept = part.read_bytes()
    assert 2 < kept.count(b"\n") < 5
    with part.open("ab") as file:
        file.write(b'{"number": 2, "sam')  # what a kill within a write leaves
    evaluate(tmp_path)
    assert part.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert (tmp_path / "records.jsonl").read_bytes() == (complete / "records.jsonl").read_bytes()


def test_the_help_says_how_to_start_several_processes() -> None:
    assert "accelerate launch" in CliRunner().invoke(app, ["evaluate", "--help"]).output
