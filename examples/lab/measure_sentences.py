"""Sixteen sentences about one image of about 1,000 tokens: one `extract` call beside a loop of sixteen.

    python examples/lab/measure_sentences.py --report examples/lab/results/sentences.json

Both are run in turn in one process, preprocessing included; the ratio is the median of the rounds. The bound is that of
tokens: all tokens of the loop over those of one beginning and sixteen texts. Memory is the largest that the process
holds beyond what it held before, over one call with one sentence and over one call with all.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from PIL import Image
from report import write_report

from vlm_adapters import Prompt, load_adapter

MODEL, SIDE = "tiny-qwen2_5_vl", 512
SENTENCES = [f"the {colour} {shape}" for colour in ("red", "blue", "green", "grey") for shape in ("star", "ring")]
SENTENCES += [f"a {sentence.removeprefix('the ')}" for sentence in SENTENCES]


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def mebibytes(work: Callable[[], object]) -> float:
    """The largest memory of the process during some work, beyond what it held before."""
    process, ended, most = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.002):
            most[0] = max(most[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    ended.set()
    thread.join()
    return round(most[0] / 2**20, 1)


def measure(rounds: int) -> dict[str, object]:
    """Run both in turn."""
    adapter = load_adapter(MODEL, device="cpu", dtype="float32", min_pixels=SIDE**2, max_pixels=SIDE**2)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    prompts = [Prompt.describe(image, text, [(0, len(text))]) for text in SENTENCES]

    def together() -> object:
        return adapter.extract(adapter.preprocess(prompts))

    def loop() -> object:
        return [adapter.extract(adapter.preprocess([prompt])) for prompt in prompts]

    rows = [adapter.preprocess([prompt]).tensors["input_ids"][0] for prompt in prompts]
    shortest = min(map(len, rows))
    same = torch.stack([row[:shortest] == rows[0][:shortest] for row in rows]).all(dim=0)
    common = int(same.long().cumprod(0).sum())
    bound = sum(map(len, rows)) / (common + sum(len(row) - common for row in rows))
    together()
    pairs = [(seconds(together), seconds(loop)) for _ in range(rounds)]
    ratio = median(of_loop / of_one for of_one, of_loop in pairs)
    return {
        "model": MODEL,
        "sentences": len(prompts),
        "tokens of a prompt": len(rows[0]),
        "tokens of the common beginning": common,
        "ms, one call": round(1e3 * median(of_one for of_one, _ in pairs)),
        "ms, loop": round(1e3 * median(of_loop for _, of_loop in pairs)),
        "loop / one call": round(ratio, 2),
        "bound by tokens": round(bound, 2),
        "share of the bound": round(ratio / bound, 2),
        "MiB, one sentence": mebibytes(lambda: adapter.extract(adapter.preprocess(prompts[:1]))),
        "MiB, all in one call": mebibytes(together),
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    numbers = measure(chosen.rounds)
    print(json.dumps(numbers, indent=2))
    if chosen.report:
        write_report(chosen.report, numbers)


if __name__ == "__main__":
    main()
