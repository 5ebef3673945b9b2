"""Measure embedded models over several held-out seeds, so that a number comes with what it rests on.

    python examples/lab/measure_claims.py [--data scenes hard_scenes] [--count 500] [--models tiny-llava ...]
    python examples/lab/measure_claims.py --count 20                              # a trial of minutes
    python examples/lab/measure_claims.py --train tiny-llava --training-seeds 0 1 2 --random tiny-llava

For every data set and model, or folder of a decoder: the numbers over all seeds together, with a bootstrap interval
over all of their images, and those of every seed. With `--train`, the same for decoders of one backbone that differ in
the seed of their training; with `--random`, for a decoder of the backbone with random weights. Both train as
`train_tiny_decoder.py` does, without a presence head: for them a phrase that is not there counts as found.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from measure_heads import randomise
from report import write_report
from train_tiny_decoder import Training, train_decoder

from vlm_adapters import GroundedVLM, evaluate, load_adapter, load_grounder
from vlm_adapters.data.formats import hard_scenes, scenes
from vlm_adapters.evaluation import (
    EvaluationSettings,
    Number,
    Record,
    join_runs,
    open_for_protocol,
    read_records,
    summarise,
)
from vlm_adapters.grounding import Grounder

MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
FIRST_SEEDS = {"scenes": scenes.HELD_OUT_SEED, "hard_scenes": hard_scenes.HELD_OUT_SEED}
"""The seed that each data set is reported on elsewhere."""

FURTHER = (0, 100, 200)
"""What is added to it: nothing is trained, chosen or calibrated on any of them."""

SHOWN = ("mIoU", "cIoU", "P@0.5", "boundary F", "N-acc", "T-acc")
"""The metrics that are reported over all phrases; of groups, the first."""

Claims = dict[str, dict[str, object]]
"""Per kind of mask and metric, or group, what is claimed."""


def records_of(grounder: Grounder, data: Mapping[str, str], folder: Path) -> dict[str, list[Record]]:
    """Ground every data set, and read the records of each."""
    settings = EvaluationSettings(protocol="packed", model=folder.name)
    for name, source in data.items():
        evaluate(grounder, open_for_protocol(source, "packed"), settings, folder / name)
    return {name: read_records(folder / name / "records.jsonl") for name in data}


def claims(runs: Mapping[str, Sequence[Record]]) -> Claims:
    """The numbers of a model: over all runs with an interval, and of every run."""
    of_runs = {name: {_key(number): number for number in summarise(records)} for name, records in runs.items()}
    found: Claims = {}
    for number in summarise(join_runs(runs)):
        is_shown = number.metric in SHOWN if number.group == "all" else number.metric == SHOWN[0]
        if not is_shown or number.value is None:
            continue
        same = {name: numbers.get(_key(number)) for name, numbers in of_runs.items()}
        alone = {name: None if other is None else other.value for name, other in same.items()}
        values = [value for value in alone.values() if value is not None]
        name = number.metric if number.group == "all" else f"{number.metric}, {number.group}"
        found.setdefault(number.masks, {})[name] = {
            "value": _rounded(number.value),
            "interval": [_rounded(number.low), _rounded(number.high)],
            "phrases": number.phrases,
            "by seed": {name: _rounded(value) for name, value in alone.items()},
            "spread over seeds": _rounded(max(values) - min(values)),
        }
    return found


def _key(number: Number) -> tuple[str, str, str]:
    return number.group, number.masks, number.metric


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def trained(model: str, training: Training) -> GroundedVLM:
    """A decoder that is trained on an embedded backbone."""
    return train_decoder(load_adapter(model), training)


def trained_on_random(model: str, training: Training) -> GroundedVLM:
    """The same where the backbone has random weights."""
    return train_decoder(randomise(load_adapter(model)), training)


def show(title: str, found: Claims) -> None:
    """Print the numbers of a model."""
    print(f"\n{title}")
    for masks, numbers in found.items():
        for name, number in numbers.items():
            low, high = number["interval"]
            seeds = "  ".join(f"{value:.4f}" if value is not None else "-" for value in number["by seed"].values())
            print(f"  {masks:8} {name:28} {number['value']:.4f} [{low:.4f}, {high:.4f}]   by seed {seeds}", flush=True)


def arguments_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=FIRST_SEEDS, default=tuple(FIRST_SEEDS))
    parser.add_argument("--count", type=int, default=500, help="scenes of every seed")
    parser.add_argument("--models", nargs="*", default=MODELS, help="embedded models, or folders of decoders")
    parser.add_argument("--train", help="the backbone of decoders that are trained by several seeds")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--random", nargs="*", default=[], help="backbones that are measured with random weights, too")
    parser.add_argument("--scenes", type=int, default=Training.scenes, help="of each kind, to train on")
    parser.add_argument("--steps", type=int, default=Training.steps, help="of training")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    return parser.parse_args()


def main() -> None:
    """Measure and train what was asked for, and print the numbers."""
    arguments = arguments_of_command()
    training = Training(arguments.scenes, arguments.steps)
    grounders: dict[str, Callable[[], Grounder]] = {model: partial(load_grounder, model) for model in arguments.models}
    for seed in arguments.training_seeds if arguments.train else ():
        title = f"{arguments.train}, decoder trained with seed {seed}"
        grounders[title] = partial(trained, arguments.train, replace(training, seed=seed))
    for model in arguments.random:
        grounders[f"{model}, random weights"] = partial(trained_on_random, model, training)
    found: dict[str, dict[str, Claims]] = {data: {} for data in arguments.data}
    with tempfile.TemporaryDirectory() as folder:
        for title, load in grounders.items():
            grounder = load()
            for data in arguments.data:
                sources = {
                    f"seed {seed}": f"{data}:count={arguments.count},seed={seed}"
                    for seed in (FIRST_SEEDS[data] + more for more in FURTHER)
                }
                records = records_of(grounder, sources, Path(folder) / data / title.replace(os.sep, "_"))
                found[data][title] = claims(records)
                show(f"{title}, {data}", found[data][title])
    if arguments.report:
        about = {"count": arguments.count, "scenes of each kind to train on": training.scenes, "steps": training.steps}
        write_report(arguments.report, {**about, "data": found})


if __name__ == "__main__":
    main()
