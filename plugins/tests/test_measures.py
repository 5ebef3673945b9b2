"""The scripts that measure training and its cache run on little data, and count right."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_adapters import GroundedVLM, load_adapter
from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
from vlm_adapters.decoder.unet import UNetConfig
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.training.log import Step

LAB = Path(__file__).parents[2] / "examples" / "lab"


def test_both_ways_to_train_give_one_curve(script: Any, tmp_path: Path) -> None:
    measure_cache = script("measure_cache")
    sizes = measure_cache.Sizes(layers=1, width=64, cells=64, base_width=4, samples=2, embedded_samples=2, epochs=2)
    numbers = measure_cache.measure(sizes, tmp_path)
    assert numbers["one curve"] is True
    for name in ("random, 0.3 B", "tiny-qwen2_5_vl"):
        found = numbers[name]
        assert found["largest difference of the loss curves"] == 0
        assert found["seconds of an epoch, from the cache"] > 0
        assert found["seconds of an epoch, backbone in the loop"] > 0
        shards = tmp_path.glob(f"{name.partition(',')[0]}-scenes*/*.safetensors")
        assert found["bytes of the cache"] == sum(shard.stat().st_size for shard in shards)
    assert numbers["tiny-qwen2_5_vl"]["parameters"] == load_adapter("tiny-qwen2_5_vl").model.num_parameters()


def test_the_large_backbone_has_its_sizes_and_tokens(script: Any) -> None:
    measure_cache = script("measure_cache")
    adapter = measure_cache.large_backbone(measure_cache.Sizes(layers=2, width=128))
    assert (adapter.info.num_layers, adapter.info.num_heads, adapter.info.hidden_size) == (2, 2, 128)
    for sample in Scenes(4):
        grid = adapter.locate_image_tokens(adapter.preprocess([sample.prompt]))[0][0]
        assert grid.tokens.numel() == pytest.approx(1000, rel=0.08)


def test_an_epoch_is_timed_from_the_end_of_the_one_before(script: Any) -> None:
    clock = script("measure_cache").Clock("a run")
    clock.times = [(5.0, 1.0), (9.0, 2.0), (10.0, 3.0), (12.0, 4.0), (13.0, 5.0), (19.0, 9.0)]
    assert clock.epoch(3) == pytest.approx(((3 + 7) / 2, (2 + 5) / 2))
    clock(Step(number=1, total=1, loss=0.5, learning_rate=0.1, grad_norm=1.0, seconds=0.1))
    assert clock.losses == [0.5]


def test_the_operations_of_a_unet_are_those_of_its_convolutions(script: Any) -> None:
    channels, width, side = 5, 3, 8
    found = script("cache_arithmetic").unet_operations(UNetConfig(channels, width, depth=1, canvas=side), side)
    first, second, head = 9 * channels * width, 9 * width * width, width
    # to every product of the forward pass, two of the backward pass; the maps themselves need no gradient
    assert found == 2 * side**2 * (2 * first + 3 * second + 3 * head)


def test_the_arithmetic_follows_from_its_sizes(script: Any) -> None:
    arithmetic = script("cache_arithmetic")
    of_width, parameters = arithmetic.unet_operations(UNetConfig(784, 4), 2), 1e6
    measured = {
        "image tokens, mean": 4.0,
        "samples": 2,
        "phrases": 6,
        "decoder base width": 4,
        "decoder channels": 784,
        "parameters": parameters,
        "layers": 0,
        "width": 0,
        "seconds to build the cache": 8.0,
        "seconds to read all of it": 3.0,
        "bytes of the cache": 784 * 4 * 2 * 6,
        "seconds of an epoch, from the cache": 10.0,
    }
    found = arithmetic.arithmetic(measured)
    large = 2 * 7e9 * 4 + 28 * 2 * 4**2 * 3584
    assert found["TFLOP, forward pass of the backbone"] == pytest.approx(large / 1e12)
    assert found["TFLOP, U-Net forward and backward"] == pytest.approx(3 * of_width / 1e12)
    assert found["operations, from the cache / in the loop"] == pytest.approx(3 * of_width / (3 * of_width + large))
    assert found["seconds, forward pass at the measured speed"] == pytest.approx(4 * large / (2 * parameters * 4))
    assert found["seconds, U-Net at the measured speed"] == pytest.approx(5)
    assert found["seconds, reading at the measured speed"] == pytest.approx(1.5)


def test_memory_is_the_most_of_every_quarter(script: Any) -> None:
    watch = script("measure_cache_memory").MemoryWatch(8)
    watch.seen = [(0, 3_000_000), (1, 5_000_000), (2, 4_000_000), (5, 7_000_000), (8, 6_000_000)]
    assert watch.quarters() == [5.0, 4.0, 7.0, 6.0]


def test_a_small_cache_is_watched_and_read(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("measure_cache_memory")
    for name, value in (("SHARD_SAMPLES", 4), ("READS", 5), ("LOOK_EVERY", 0.005), ("PRINT_EVERY", 16)):
        monkeypatch.setattr(module, name, value)
    numbers = module.measure("tiny-qwen2_5_vl", 32, tmp_path)
    assert numbers["bytes"] == sum(shard.stat().st_size for shard in (tmp_path / "large").glob("*.safetensors"))
    assert numbers["samples of the small cache"] == 8
    quarters = numbers["most memory per quarter, MB"]
    assert min(quarters) > 100
    assert numbers["most memory, last quarter / first"] == pytest.approx(quarters[3] / quarters[0], abs=1e-3)
    assert 0 < numbers["median ms to read a sample, large cache"] < 1000
    assert "    16 scenes" in capsys.readouterr().out


def test_a_recipe_is_measured_on_held_out_scenes(script: Any, tmp_path: Path) -> None:
    changes = [
        "train=['scenes:count=8,seed=3']",
        "validation=scenes:count=2,seed=6",
        "epochs=1",
        "batch_size=8",
        "decoder.base_width=4",
    ]
    numbers = script("measure_recipes").measure("tiny-llava", tmp_path, 3, changes)
    assert numbers["training scenes"] == 8
    assert numbers["best step"] == numbers["steps"] == 1
    vlm = GroundedVLM.from_pretrained(tmp_path / "run" / "best", device="cpu")
    ious = [
        mask_iou(phrase.mask, mask)
        for sample in Scenes(3, seed=HELD_OUT_SEED)
        for phrase, mask in zip(vlm.ground_all([sample.prompt])[0].phrases, sample.masks, strict=True)
    ]
    assert numbers["mean IoU"] == pytest.approx(np.mean(ious), abs=1e-3)
    embedded = json.loads((LAB / "results" / "tiny-llava_scenes.json").read_text(encoding="utf-8"))
    assert numbers["share"] == pytest.approx(np.mean(ious) / embedded["mean IoU"], abs=2e-3)
    assert numbers["at least 95 %"] is False


def test_a_report_says_how_and_where_it_was_measured(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = script("report")
    monkeypatch.setattr(sys, "argv", ["examples/lab/measure.py", "--model", "a name"])
    report.write_report(tmp_path / "measured.json", {"mean IoU": 0.5})
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    written = report.read_report("measured")
    assert written["command"] == "python examples/lab/measure.py --model 'a name'"
    assert datetime.fromisoformat(written["date"]).tzinfo is None
    assert written["machine"].startswith(f"{os.cpu_count()} cores of ")
    assert written["mean IoU"] == 0.5


def test_every_stored_result_says_how_and_where_it_was_measured() -> None:
    for path in (LAB / "results").glob("*.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        assert {"command", "date"} <= report.keys(), path.name
        assert report.keys() & {"machine", "device"}, path.name


@pytest.mark.parametrize("name", sorted(embedded_checkpoints()))
def test_a_recipe_is_compared_with_the_embedded_decoder_as_it_was_measured(name: str) -> None:
    scenes, recipe = (
        json.loads((LAB / "results" / f"{name}_{what}.json").read_text(encoding="utf-8"))
        for what in ("scenes", "recipe")
    )
    assert recipe["model"] == name
    assert recipe["changes"] == []
    assert recipe["scenes"] == scenes["scenes"] == 500
    assert recipe["mean IoU, embedded decoder"] == scenes["mean IoU"]
    assert recipe["mean IoU"] >= 0.95 * scenes["mean IoU"]
