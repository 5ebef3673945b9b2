"""Ground 500 times and load adapters 200 times in one process: memory must not grow.

    python examples/lab/measure_memory.py --report examples/lab/results/memory.json

Memory is what the process holds in RAM after every step. Means of the first and the last quarter are compared, after a
tenth of the steps that warms up.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from PIL import Image
from report import write_report

from vlm_adapters import GroundedVLM, load_adapter

MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
MOST_GROWTH = 1.02


def growth(step: Callable[[int], object], count: int) -> dict[str, float]:
    """Memory of the last quarter of many steps beside that of the first."""
    process, seen = psutil.Process(), []
    for index in range(-(count // 10), count):
        step(index)
        if index >= 0:
            seen.append(process.memory_info().rss)
    quarter = max(count // 4, 1)
    first, last = sum(seen[:quarter]) / quarter, sum(seen[-quarter:]) / quarter
    return {
        "steps": count,
        "MiB, first quarter": round(first / 2**20, 1),
        "MiB, last quarter": round(last / 2**20, 1),
        "last / first": round(last / first, 4),
    }


def measure(groundings: int, loads: int) -> dict[str, object]:
    """Ground images of varying sizes with a model that stays, then load models and let them go."""
    vlm = GroundedVLM.from_pretrained(MODELS[0], device="cpu")

    def ground(index: int) -> None:
        image = Image.new("RGB", (96 + index % 7 * 16, 96 + index % 5 * 16), "white")
        vlm.ground(image, "a red circle and a blue square", ["a red circle", "a blue square"])

    def load(index: int) -> None:
        load_adapter(MODELS[index % len(MODELS)], device="cpu")
        gc.collect()

    return {"groundings": growth(ground, groundings), "loads": growth(load, loads), "bar": MOST_GROWTH}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groundings", type=int, default=500)
    parser.add_argument("--loads", type=int, default=200)
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    numbers = measure(chosen.groundings, chosen.loads)
    print(json.dumps(numbers, indent=2))
    if chosen.report:
        write_report(chosen.report, numbers)


if __name__ == "__main__":
    main()
