"""Measure what training from a cache saves against training with the backbone in the loop: same samples, same steps.

    python examples/lab/measure_cache.py [--report FILE]

Takes about 5 minutes and 4 GB of memory on two cores. Two backbones: one with random weights, the language model of
Qwen2.5-0.5B with 20 of its 24 layers (0.3 billion parameters) and images of about 1,000 image tokens, under a U-Net
of F-LMM's width; and the embedded one, under the U-Net of the recipe `scenes`. All ways run in this one process, one
after the other, without checkpoints in between; an epoch is timed from its predecessor's last step to its own last.

At the end stands what the same would be for a model of 7 billion parameters: arithmetic, not a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from cache_arithmetic import arithmetic
from report import write_report

from vlm_adapters import TransformersBackbone, load_adapter
from vlm_adapters.testing.tiny import random_model
from vlm_adapters.training import CachedSamples, Recipe, Step, build_caches, train

SEED = 5
"""Of the scenes: neither learnt from, nor chosen or measured by."""
HEAD_WIDTH = 64
EMBEDDED = "tiny-qwen2_5_vl"
MOST_DIFFERENCE, MOST_SHARE = 1e-4, 0.2


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    layers: int = 20
    width: int = 896
    cells: int = 1000
    base_width: int = 64
    samples: int = 6
    embedded_samples: int = 64
    epochs: int = 3


class Clock:
    """Notes the loss and the time of every step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.losses: list[float] = []
        self.times: list[tuple[float, float]] = []

    def __call__(self, step: Step) -> None:
        """Note a step."""
        self.losses.append(step.loss)
        self.times.append((perf_counter(), process_time()))
        print(f"{self.name}: step {step.number} of {step.total}, loss {step.loss:.4f}", flush=True)

    def epoch(self, epochs: int) -> tuple[float, float]:
        """Median over the epochs after the first: seconds on the wall, and of the processor, all its cores together."""
        ends = self.times[len(self.times) // epochs - 1 :: len(self.times) // epochs]
        wall, processor = np.median(np.diff(ends, axis=0), axis=0).tolist()
        return wall, processor

    def difference(self, other: Clock) -> float:
        """Largest difference of the loss curves."""
        return float(np.abs(np.subtract(self.losses, other.losses)).max())


def large_backbone(sizes: Sizes) -> TransformersBackbone:
    """The embedded backbone's classes and processor with random weights, larger, on images of more tokens."""
    tiny = load_adapter(EMBEDDED, device="cpu")
    settings = tiny.model.config.to_dict()
    text = {key: value for key, value in settings["text_config"].items() if key not in ("layer_types", "rope_scaling")}
    text |= {
        "hidden_size": sizes.width,
        "intermediate_size": sizes.width * 38 // 7,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.width // HEAD_WIDTH,
        "num_key_value_heads": max(1, sizes.width // HEAD_WIDTH // 7),
        "initializer_range": 0.02,
        "max_window_layers": sizes.layers,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
    }
    settings |= {"text_config": text, "vision_config": settings["vision_config"] | {"out_hidden_size": sizes.width}}
    model = random_model(type(tiny.model.config).from_dict(settings)).eval()
    images = tiny.processor.image_processor
    cell = (images.patch_size * images.merge_size) ** 2
    limits = {"min_pixels": sizes.cells * cell * 97 // 100, "max_pixels": sizes.cells * cell * 106 // 100}
    return type(tiny)(model, tiny.processor, checkpoint="random", **limits)


def compare(adapter: TransformersBackbone, recipe: Recipe, folder: Path) -> dict[str, float]:
    """Build a cache, train from it, and train with the backbone in the loop."""
    print("Caches the scenes ...", flush=True)
    started = perf_counter()
    (cache,) = build_caches(recipe, adapter=adapter)
    building = perf_counter() - started
    samples = CachedSamples(cache.folder)
    started = perf_counter()
    cells = [sample.features.maps[0, 0].numel() for sample in samples.read(range(len(samples)))]
    reading = perf_counter() - started
    cached, looped = Clock("from the cache"), Clock("backbone in the loop")
    train(recipe, folder / "cached", adapter=adapter, report=cached)
    without = recipe.model_copy(update={"cache": None})
    train(without, folder / "looped", adapter=adapter, report=looped)
    (in_cache, work_in_cache), (in_loop, work_in_loop) = cached.epoch(recipe.epochs), looped.epoch(recipe.epochs)
    return {
        "parameters": sum(weight.numel() for weight in adapter.model.parameters()),
        "layers": adapter.info.num_layers,
        "width": adapter.info.hidden_size,
        "samples": len(samples),
        "phrases": sum(samples.index.phrases),
        "image tokens, mean": float(np.mean(cells)),
        "decoder channels": samples.fingerprint.feature_request.channels(adapter.info),
        "decoder base width": recipe.decoder.base_width,
        "steps": len(cached.losses),
        "seconds to build the cache": building,
        "seconds to read all of it": reading,
        "bytes of the cache": samples.index.bytes,
        "seconds of an epoch, backbone in the loop": in_loop,
        "seconds of an epoch, from the cache": in_cache,
        "cached / in the loop": in_cache / in_loop,
        "cached / in the loop, processor seconds": work_in_cache / work_in_loop,
        "largest difference of the loss curves": cached.difference(looped),
    }


def measure(sizes: Sizes, folder: Path) -> dict[str, object]:
    """Compare for both backbones."""

    def recipe(name: str, count: int, **changes: object) -> Recipe:
        fixed = {"model": name, "device": "cpu", "train": [f"scenes:count={count},seed={SEED}"], "cache": str(folder)}
        return Recipe.model_validate({**fixed, "epochs": sizes.epochs, "validate_every": 10**9, **changes})

    published = recipe("random", sizes.samples, batch_size=2, decoder={"base_width": sizes.base_width})
    large = compare(large_backbone(sizes), published, folder / "large")
    scenes = Recipe.read("scenes")
    alike = {"decoder": scenes.decoder, "learning_rate": scenes.learning_rate, "batch_size": scenes.batch_size}
    embedded = recipe(EMBEDDED, sizes.embedded_samples, **alike)
    small = compare(load_adapter(EMBEDDED, device="cpu"), embedded, folder / "embedded")
    difference = max(found["largest difference of the loss curves"] for found in (large, small))
    rounded = {
        name: {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in found.items()}
        for name, found in (("random, 0.3 B", large), (EMBEDDED, small), ("arithmetic, 7 B", arithmetic(large)))
    }
    met = {
        "a fifth of the time": large["cached / in the loop"] <= MOST_SHARE,
        "one curve": difference <= MOST_DIFFERENCE,
    }
    return {**rounded, **met}


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(Sizes(), Path(folder))
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
