"""Measure heads on held-out scenes: profiles, their best head alone, a head taken at random, and maps by reliability.

    python examples/lab/measure_heads.py [--model tiny-qwen2_5_vl] [--count 200] [--labelled 100] [--samples 50]

IoU is of masks at the image's size; the pointing game asks whether a map's peak is on the object. A phrase for which
nothing is found counts 0 in both. The control has random weights: neither of its profiles should have heads.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from report import write_report

from vlm_adapters import GridRequest, TransformersBackbone, load_adapter, place_map
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.formats.scenes import COLOURS, HELD_OUT_SEED, SHAPES, Scenes
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.heads.attention import attention_maps
from vlm_adapters.heads.calibrate import CALIBRATION_SEED, MAX_HEADS, CalibrationSet, calibrate
from vlm_adapters.heads.extraction import extract_with_neutral, maps_beside_neutral, phrase_heights
from vlm_adapters.heads.profile import HeadProfile, ProfileHead
from vlm_adapters.prompt import Prompt


def single_heads(adapter: BackboneAdapter, profile: HeadProfile) -> list[HeadProfile]:
    """The profile with every head of the backbone alone; a peak that hardly stands out counts, too."""
    heads = [(layer, head) for layer in adapter.info.attention_layers for head in range(adapter.info.num_heads)]
    return [
        profile.model_copy(
            update={
                "heads": [ProfileHead(layer=layer, head=head, weight=1.0, value=0.0)],
                "least_prominence": 0.0,
            }
        )
        for layer, head in heads
    ]


def measure(adapter: BackboneAdapter, profiles: dict[str, list[HeadProfile]], scenes: Scenes) -> dict[str, float]:
    """Mean IoU, pointing game and share of phrases found, per name over all its profiles."""
    values: dict[str, list[float]] = defaultdict(list)
    neutral = next(iter(profiles.values()))[0].neutral
    for sample in scenes:
        ((asked, of_neutral),) = extract_with_neutral(adapter, [sample.prompt], neutral, GridRequest())
        size = sample.image.height, sample.image.width
        for name, alike in profiles.items():
            for profile in alike:
                relative, box = maps_beside_neutral(asked, of_neutral, profile.indices)
                placed = place_map(phrase_heights(relative, profile), box, size).cpu().numpy()
                for found, mask in zip(placed, sample.masks, strict=True):
                    values[f"mean IoU, {name}"].append(mask_iou(found > profile.threshold, mask))
                    hit = bool(found.any()) and bool(mask.flat[found.argmax()])
                    values[f"pointing game, {name}"].append(hit)
                    values[f"found, {name}"].append(bool(found.any()))
    return {name: round(float(np.mean(found)), 4) for name, found in values.items()}


def found_if_absent(adapter: BackboneAdapter, profile: HeadProfile, scenes: Scenes) -> float:
    """Share of phrases found that name a shape in a colour of which the scene has neither."""
    grounder = HeadGrounder(adapter, profile)
    found = []
    for sample in scenes:
        there = {word for phrase in sample.phrases for word in phrase.text.split()}
        names = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES if not there & {colour, shape}]
        if names:
            name = names[len(found) % len(names)]
            found.append(grounder.ground_all([Prompt.describe(sample.image, f"{name} .", [name])])[0].phrases[0].box)
    return round(float(np.mean([box is not None for box in found])), 4)


def by_reliability(adapter: BackboneAdapter, scenes: Scenes) -> dict[str, float]:
    """Share of maps of each reliability, and of their peaks that are on the thing."""
    hits: dict[str, list[bool]] = {"high": [], "fair": [], "low": []}
    for sample in scenes:
        ((maps,),) = attention_maps(adapter, [sample.prompt])
        size = sample.image.height, sample.image.width
        for index, (mask, reliability) in enumerate(zip(sample.masks, maps.reliability, strict=True)):
            placed = maps.grid.place(maps.together(index), size).cpu().numpy()
            hits[reliability.level].append(bool(mask.flat[placed.argmax()]))
    total = sum(map(len, hits.values()))
    numbers = {f"maps of {level} reliability": len(found) / total for level, found in hits.items()}
    numbers |= {f"peak on the thing, {level}": float(np.mean(found or 0)) for level, found in hits.items()}
    return {name: round(value, 4) for name, value in numbers.items()}


def randomise(adapter: TransformersBackbone) -> TransformersBackbone:
    """Replace all weights by random ones, drawn as the model class draws them."""
    torch.manual_seed(0)
    adapter.model.load_state_dict(type(adapter.model)(adapter.model.config).state_dict())
    return adapter


def heads_at_random(name: str, labelled: int, samples: int) -> dict[str, int]:
    """Number of heads that profiles of the same model with random weights have."""
    adapter = randomise(load_adapter(name))
    return {
        f"heads of the {kind} profile, random weights": len(
            calibrate(
                adapter,
                CalibrationSet.of_scenes(Scenes(count, seed=CALIBRATION_SEED), CALIBRATION_SEED, labelled=with_masks),
            ).heads
        )
        for kind, count, with_masks in (("labelled", labelled, True), ("label-free", samples, False))
    }


def main() -> None:
    """Read the command line, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--count", type=int, default=200, help="held-out scenes")
    parser.add_argument("--labelled", type=int, default=100, help="scenes of the labelled profile")
    parser.add_argument("--samples", type=int, default=50, help="scenes of the label-free profile")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    adapter = load_adapter(arguments.model)
    profiles = {}
    for name, count, most in (
        ("labelled", arguments.labelled, MAX_HEADS),
        ("label-free", arguments.samples, MAX_HEADS),
        ("best head alone", arguments.labelled, 1),
    ):
        scenes = Scenes(count, seed=CALIBRATION_SEED)
        data = CalibrationSet.of_scenes(scenes, CALIBRATION_SEED, labelled=name != "label-free")
        profiles[name] = [calibrate(adapter, data, most=most)]
        print(name, [(head.layer, head.head, round(head.value, 3)) for head in profiles[name][0].heads], flush=True)
    labelled = profiles["labelled"][0]
    profiles["a head at random"] = single_heads(adapter, labelled)
    held_out = Scenes(arguments.count, seed=HELD_OUT_SEED)
    numbers = {"scenes": arguments.count, **measure(adapter, profiles, held_out)}
    numbers["found, labelled, absent things"] = found_if_absent(adapter, labelled, held_out)
    numbers["label-free / labelled, mean IoU"] = round(
        numbers["mean IoU, label-free"] / numbers["mean IoU, labelled"], 4
    )
    numbers |= by_reliability(adapter, held_out)
    numbers |= heads_at_random(arguments.model, arguments.labelled, arguments.samples)
    print(json.dumps(numbers, indent=2))
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
