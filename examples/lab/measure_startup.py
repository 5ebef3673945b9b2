"""Measure what a command costs beside a bare script that imports the same libraries and runs one pass.

    python examples/lab/measure_startup.py [--turns 7] [--report FILE]

The script loads `tiny-qwen2_5_vl` with transformers alone, its class and its processor, and runs it on the image and
the sentence that `adapters ground` is given. Every turn starts a process for each, one after the other; the ratio is
the median over the turns, so that what else the machine does strikes both. The other rows have bounds of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from report import write_report

from vlm_adapters import open_dataset
from vlm_adapters.embedded import embedded_checkpoints

MODEL = "tiny-qwen2_5_vl"
BARE = """
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

processor = AutoProcessor.from_pretrained({folder!r})
model = Qwen2_5_VLForConditionalGeneration.from_pretrained({folder!r})
image = Image.open({image!r}).convert("RGB")
text = "<|vision_start|><|image_pad|><|vision_end|>" + {text!r}
with torch.no_grad():
    model(**processor(images=[image], text=[text], return_tensors="pt"))
"""
ADAPTERS = (sys.executable, "-m", "vlm_adapters")


def commands(folder: Path) -> dict[str, Sequence[str]]:
    """The command lines that are timed, by name."""
    scene = open_dataset("scenes:count=1,seed=4")[0]
    image, words = folder / "scene.png", scene.phrases[0].text
    scene.image.save(image)
    bare = BARE.format(folder=str(embedded_checkpoints()[MODEL]), image=str(image), text=scene.text)
    asked = ("ground", str(image), scene.text, "--phrase", words, "--model", MODEL, "--out", str(folder / "out"))
    return {
        "a bare script": (sys.executable, "-c", bare),
        "adapters ground": (*ADAPTERS, *asked),
        "adapters list": (*ADAPTERS, "list"),
        "import vlm_adapters": (sys.executable, "-c", "import vlm_adapters"),
        "python": (sys.executable, "-c", "pass"),
    }


def seconds_of(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of one process."""
    started = perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if run.returncode:
        sys.exit(f"{command[:4]}: {run.stderr}")
    return perf_counter() - started


def main() -> None:
    """Read the command line, run the turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder))
        for command in timed.values():  # files are read for the first time
            seconds_of(command, environment)
        turns = [
            {name: seconds_of(command, environment) for name, command in timed.items()} for _ in range(arguments.turns)
        ]
    rows = {name: round(median(turn[name] for turn in turns), 3) for name in timed}
    ratio = round(median(turn["adapters ground"] / turn["a bare script"] for turn in turns), 3)
    for name, seconds in rows.items():
        print(f"{name:24} {seconds:7.3f} s")
    print(f"adapters ground / a bare script, median of {len(turns)} turns: {ratio:.2f}")
    if arguments.report:
        write_report(arguments.report, {"turns": len(turns), "seconds": rows, "ground / bare script": ratio})
    else:
        print(json.dumps(turns))


if __name__ == "__main__":
    main()
