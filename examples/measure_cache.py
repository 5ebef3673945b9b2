"""Measure what training from a cache saves against training with the backbone in the loop: same samples, same steps.

    python examples/measure_cache.py [--report FILE]

Takes about 6 minutes and 4 GB of memory on two cores. Two backbones: one with random weights, the language model of
Qwen2.5-0.5B with 20 of its 24 layers (0.3 billion parameters) and pictures of about 1,000 image tokens, under a U-Net
of F-LMM's width; and the embedded one, under the U-Net of the recipe `scenes`. Both ways run in this one process, one
after the other, without checkpoints in between; an epoch is timed from its predecessor's last step to its own last.

At the end stands what the same would be for a model of 7 billion parameters: arithmetic, not a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm_adapters import load_adapter
from vlm_adapters.backbone import BackboneAdapter
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.files import write_json
from vlm_adapters.testing.tiny import random_model
from vlm_adapters.training.cache import CachedSamples, build_cache
from vlm_adapters.training.extracted import LiveSamples
from vlm_adapters.training.loop import Step, train
from vlm_adapters.training.plan import FeaturePlan
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.sources import Sources

SEED = 5
"""Of the scenes: neither learnt from, nor chosen or measured by."""
HEAD_WIDTH = 64
EMBEDDED = "tiny-qwen2_5_vl"
MOST_DIFFERENCE, MOST_SHARE = 1e-4, 0.2
PARAMETERS_7B, LAYERS_7B, HEADS_7B, WIDTH_7B = 7e9, 28, 28, 3584
"""Of Qwen2.5-VL-7B's language model; the vision tower comes on top of it and is left out."""


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


class Given(Sources):
    """Sources whose backbone is there already."""

    def __init__(self, recipe: Recipe, adapter: BackboneAdapter) -> None:
        super().__init__(recipe)
        self.adapter = adapter

    def live(self, data: Dataset) -> LiveSamples:
        """See `Sources`."""
        return LiveSamples(self.adapter, data, FeaturePlan.of(self.adapter, data.source, self.request))


class Clock:
    """Notes loss and time of every step; gives the seconds of the epochs after the first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.losses: list[float] = []
        self.times: list[float] = []

    def __call__(self, step: Step) -> None:
        """Note a step."""
        self.losses.append(step.loss)
        self.times.append(perf_counter())
        print(f"{self.name}: step {step.number} of {step.total}, loss {step.loss:.4f}", flush=True)

    def epoch_seconds(self, epochs: int) -> float:
        """Median over the epochs after the first."""
        ends = self.times[len(self.times) // epochs - 1 :: len(self.times) // epochs]
        return statistics.median(np.diff(ends).tolist())


def large_backbone(sizes: Sizes) -> BackboneAdapter:
    """The embedded backbone's classes and processor with random weights, larger, on pictures of more tokens."""
    tiny = load_adapter(EMBEDDED, device="cpu")
    told = tiny.model.config.to_dict()
    text = {key: value for key, value in told["text_config"].items() if key not in ("layer_types", "rope_scaling")}
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
    told |= {"text_config": text, "vision_config": told["vision_config"] | {"out_hidden_size": sizes.width}}
    model = random_model(type(tiny.model.config).from_dict(told)).eval()
    images = tiny.processor.image_processor
    cell = (images.patch_size * images.merge_size) ** 2
    limits = {"min_pixels": sizes.cells * cell * 97 // 100, "max_pixels": sizes.cells * cell * 106 // 100}
    return type(tiny)(model, tiny.processor, checkpoint="random", **limits)


def compare(adapter: BackboneAdapter, recipe: Recipe, folder: Path) -> dict[str, float]:
    """Build a cache, train from it, and train with the backbone in the loop."""
    live = Given(recipe, adapter).live(Given(recipe, adapter).caches()[0].data)
    print(f"Caches {len(live)} scenes ...", flush=True)
    started = perf_counter()
    build_cache(live, Given(recipe, adapter).caches()[0].folder)
    building = perf_counter() - started
    cached, looped = Clock("from the cache"), Clock("backbone in the loop")
    train(recipe, folder / "cached", Given(recipe, adapter), cached)
    without = recipe.model_copy(update={"cache": None})
    train(without, folder / "looped", Given(without, adapter), looped)
    samples = CachedSamples(Given(recipe, adapter).caches()[0].folder)
    started = perf_counter()
    read = samples.read(range(len(samples)))
    reading = perf_counter() - started
    config = UNetConfig(samples.plan.features.channels(adapter.info), recipe.decoder.base_width)
    in_cache, in_loop = cached.epoch_seconds(recipe.epochs), looped.epoch_seconds(recipe.epochs)
    cells = [sample.features.maps[0, 0].numel() for sample in read]
    return {
        "parameters": sum(weight.numel() for weight in adapter.model.parameters()),
        "layers": adapter.info.num_layers,
        "width": adapter.info.hidden_size,
        "samples": len(samples),
        "phrases": sum(samples.index.phrases),
        "image tokens, mean": float(np.mean(cells)),
        "decoder channels": config.channels,
        "decoder base width": recipe.decoder.base_width,
        "epochs": recipe.epochs,
        "seconds to build the cache": building,
        "seconds to read all of it": reading,
        "bytes of the cache": samples.index.bytes,
        "seconds of an epoch, backbone in the loop": in_loop,
        "seconds of an epoch, from the cache": in_cache,
        "cached / in the loop": in_cache / in_loop,
        "largest difference of the loss curves": float(np.abs(np.subtract(cached.losses, looped.losses)).max()),
    }


def arithmetic(measured: dict[str, float]) -> dict[str, float]:
    """What an epoch would take for 7 billion parameters, per sample, at the speeds that were measured on the large one.

    A forward pass takes 2 operations per parameter and token, and 2 x layers x width x tokens^2 for causal attention.
    The U-Net's are counted on its own graph, forward and backward.
    """

    def forward_pass(parameters: float, layers: float, width: float) -> float:
        return 2 * parameters * tokens + 2 * layers * width * tokens**2

    tokens = measured["image tokens, mean"]
    phrases = measured["phrases"] / measured["samples"]
    channels = LAYERS_7B * HEADS_7B
    small = forward_pass(measured["parameters"], measured["layers"], measured["width"])
    large = forward_pass(PARAMETERS_7B, LAYERS_7B, WIDTH_7B)
    width, side = int(measured["decoder base width"]), round(tokens**0.5)
    of_unet = phrases * unet_operations(UNetConfig(channels, width), side)
    of_measured = phrases * unet_operations(UNetConfig(int(measured["decoder channels"]), width), side)
    size = phrases * channels * tokens * 2
    forward = large / small * measured["seconds to build the cache"] / measured["samples"]
    learning = of_unet / of_measured * measured["seconds of an epoch, from the cache"] / measured["samples"]
    return {
        "tokens": tokens,
        "phrases per sample": phrases,
        "TFLOP, forward pass of the backbone": large / 1e12,
        "TFLOP, U-Net forward and backward": of_unet / 1e12,
        "operations, from the cache / in the loop": of_unet / (of_unet + large),
        "MB read from the cache": size / 1e6,
        "seconds, forward pass at the measured speed": forward,
        "seconds, U-Net at the measured speed": learning,
        "seconds, reading at the measured speed": size
        * measured["seconds to read all of it"]
        / measured["bytes of the cache"],
        "cached / in the loop": learning / (learning + forward),
    }


def unet_operations(config: UNetConfig, side: int) -> int:
    """Floating-point operations to learn from one phrase on a grid of `side x side` cells."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(config)(torch.zeros(1, config.channels, side, side)).sum().backward()
    return counter.get_total_flops()


def measure(sizes: Sizes, folder: Path) -> dict[str, object]:
    """Compare for both backbones."""

    def recipe(name: str, count: int, **changes: object) -> Recipe:
        fixed = {"model": name, "device": "cpu", "train": [f"scenes:count={count},seed={SEED}"], "cache": str(folder)}
        return Recipe.model_validate({**fixed, "epochs": sizes.epochs, "validate_every": 10**9, **changes})

    large = compare(
        large_backbone(sizes),
        recipe("random", sizes.samples, batch=2, decoder={"base_width": sizes.base_width}),
        folder / "large",
    )
    scenes = Recipe.read("scenes")
    alike = {"decoder": scenes.decoder, "learning_rate": scenes.learning_rate, "batch": scenes.batch}
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
        write_json(arguments.report, numbers)


if __name__ == "__main__":
    main()
