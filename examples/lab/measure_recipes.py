"""Train a decoder by the recipe `scenes` from a cache, and measure it against the embedded decoder on held-out scenes.

    python examples/lab/measure_recipes.py [--model tiny-qwen2_5_vl] [--count 500] [--report FILE] [KEY=VALUE ...]

Takes about 4 minutes for each embedded backbone on two idle cores, the building of the cache and the measuring with
it. A decoder is to reach 95 % of the embedded decoder's mean IoU, by `results/MODEL_scenes.json`, after at most
10 minutes of training. The recipe's own validation chooses the checkpoint; no held-out scene has a part in that.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from measure_tiny import coarse_ious
from report import read_report, write_report

from vlm_adapters import GroundedVLM
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.training import Recipe, Step, TrainingData, build_caches, train
from vlm_adapters.training.checkpoint import BEST

PRINT_EVERY = 50
MOST_SECONDS, LEAST_SHARE = 600.0, 0.95


class Stopwatch:
    """Seconds on the wall and of the processor, all its cores together, since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = perf_counter(), process_time()

    def seconds(self, what: str) -> dict[str, float]:
        """Both, named by what took them."""
        wall, processor = perf_counter() - self._wall, process_time() - self._processor
        return {f"seconds, {what}": round(wall, 1), f"processor seconds, {what}": round(processor, 1)}


def print_step(step: Step) -> None:
    """Print some of the steps."""
    if step.number % PRINT_EVERY == 0 or step.number == step.total:
        print(f"step {step.number} of {step.total}, loss {step.loss:.3f}", flush=True)


def measure(model: str, folder: Path, count: int, changes: Sequence[str] = ()) -> dict[str, object]:
    """Build the caches, train, and measure.

    Args:
        model: An embedded checkpoint.
        folder: For caches and run.
        count: Held-out scenes.
        changes: Of the recipe.
    """
    recipe = Recipe.read("scenes", [f"model={model}", f"cache={folder / 'cache'}", *changes])
    watch = Stopwatch()
    print("Builds the caches ...", flush=True)
    build_caches(recipe)
    building = watch.seconds("to build the caches")
    watch = Stopwatch()
    state = train(recipe, folder / "run", report=print_step)
    training = watch.seconds("to train")
    print(f"Measures on {count} held-out scenes ...", flush=True)
    vlm = GroundedVLM.from_pretrained(folder / "run" / BEST, device="cpu")
    reached = float(coarse_ious(vlm, Scenes(count, seed=HELD_OUT_SEED)).mean())
    embedded = read_report(f"{model}_scenes")["mean IoU"]
    share = reached / embedded
    return {
        "model": model,
        "changes": list(changes),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "training scenes": len(TrainingData.open(recipe).training_samples()),
        "steps": state.step,
        **building,
        **training,
        "best step": state.best_step,
        "mean IoU, validation": round(state.best_mean_iou or 0.0, 4),
        "scenes": count,
        "mean IoU": round(reached, 4),
        "mean IoU, embedded decoder": embedded,
        "share": round(share, 4),
        "at most 10 minutes": training["seconds, to train"] <= MOST_SECONDS,
        "at least 95 %": share >= LEAST_SHARE,
    }


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--model", default="tiny-qwen2_5_vl", choices=sorted(embedded_checkpoints()))
    parser.add_argument("--count", type=int, default=500, help="held-out scenes")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(arguments.model, Path(folder), arguments.count, arguments.changes)
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
