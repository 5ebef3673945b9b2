"""Measure how much of the time of `cache build`, training in the loop and `evaluate` is not the model's own passes.

    python examples/lab/measure_feeding.py [--model NAME] [--device cuda] [--samples 48] [--report FILE]

The bare rate is that of the model's passes alone, on inputs that were prepared before. All ways run on the same scenes
in this one process, one after the other and several times; the table shows the median of the ratios within a turn, so
what else the machine does weighs on all alike. *One thread* is the same with `workers=0`: nothing is done ahead.
*Preparing alone* reads the samples and makes the inputs, without a pass: on a GPU nothing can be faster than that; on a
CPU it takes the cores that the passes need.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from report import machine, write_report

from vlm_adapters import GridRequest, GroundedVLM, TransformersBackbone, evaluate, load_adapter, open_dataset
from vlm_adapters.data import Dataset
from vlm_adapters.evaluation import EvaluationSettings
from vlm_adapters.training import Recipe, build_caches, train

SEED = 5
"""Of the scenes: neither learnt from, nor chosen or measured by."""
WORKERS = {"": None, ", one thread": 0}


class Rates:
    """Samples per second of every way of running the model, in a folder for what it writes.

    Args:
        adapter: The backbone.
        count: Number of samples.
        folder: Where caches, runs and records go.
    """

    def __init__(self, adapter: TransformersBackbone, count: int, folder: Path) -> None:
        self.adapter, self.folder = adapter, folder
        self.data: Dataset = open_dataset(f"scenes:count={count},seed={SEED}")
        self.device = torch.device(adapter.info.device)
        self.inputs = [adapter.preprocess([sample.prompt]) for sample in self.data]
        vlm = GroundedVLM.untrained(adapter, base_width=8)
        self.vlm = vlm.to(self.device).eval()

    def model_alone(self) -> None:
        """Run the passes with their inputs already prepared, and let the results become numbers."""
        for inputs in self.inputs:
            for grids in self.adapter.extract(inputs, GridRequest()):
                grids[0].attention.cpu()

    def preparing_alone(self) -> None:
        """Read the samples and make the inputs, one after the other."""
        for sample in self.data:
            self.adapter.preprocess([sample.prompt])

    def recipe(self, workers: int | None, **changes: object) -> Recipe:
        """A run over the scenes, with a small decoder: it is the backbone that is measured."""
        content: dict[str, object] = {"model": self.adapter.name, "device": str(self.device), "workers": workers}
        content |= {"train": [self.data.source], "validation": None, "epochs": 1, "validate_every": 10**9}
        return Recipe.model_validate({**content, "decoder": {"base_width": 8, "depth": 2}, **changes})

    def cache(self, workers: int | None) -> None:
        """Build a cache."""
        build_caches(self.recipe(workers, cache=str(self.folder / "cache")), adapter=self.adapter)

    def loop(self, workers: int | None) -> None:
        """Train an epoch with the backbone in the loop."""
        train(self.recipe(workers), self.folder / "run", adapter=self.adapter)

    def evaluation(self) -> None:
        """Measure the masks of an untrained decoder."""
        settings = EvaluationSettings(protocol="packed", batch_size=1)
        evaluate(self.vlm, self.data, settings, self.folder / "evaluation")

    def seconds(self, run: Callable[[], None]) -> float:
        """How long a way takes from an empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        started = perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - started


def measure(rates: Rates, repeats: int) -> dict[str, object]:
    """Time all ways in turn; gives samples per second, and the share of the bare rate."""
    ways: dict[str, Callable[[], None]] = {"model alone": rates.model_alone, "preparing alone": rates.preparing_alone}
    for suffix, workers in WORKERS.items():
        ways[f"cache build{suffix}"] = lambda workers=workers: rates.cache(workers)  # type: ignore[misc]
        ways[f"training in the loop{suffix}"] = lambda workers=workers: rates.loop(workers)  # type: ignore[misc]
    ways["evaluate"] = rates.evaluation
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            taken = rates.seconds(run)
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    found: dict[str, object] = {}
    print(f"{'':40}{'samples a second':>18}{'of the bare rate':>18}")
    for name, of_way in seconds.items():
        rate = len(rates.data) / statistics.median(of_way)
        share = statistics.median(bare / taken for bare, taken in zip(seconds["model alone"], of_way, strict=True))
        print(f"{name:40}{rate:18.2f}{share:18.2f}", flush=True)
        found[name] = {"samples a second": float(f"{rate:.4g}"), "share of the bare rate": float(f"{share:.3g}")}
    return found


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="embedded backbone, folder or hub id")
    parser.add_argument("--device", default="cpu", help="where the backbone runs")
    parser.add_argument("--dtype", default="auto", help="precision of the backbone")
    parser.add_argument("--samples", type=int, default=48, help="scenes of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    adapter = load_adapter(arguments.model, device=arguments.device, dtype=arguments.dtype)
    card = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Rates(adapter, arguments.samples, Path(folder) / "work"), arguments.repeats)
    numbers = {"model": arguments.model, "device": card, "samples": arguments.samples, **found}
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
