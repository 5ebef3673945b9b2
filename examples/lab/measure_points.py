"""Measure masks of things that are partly hidden: of their boxes alone, and with points where maps are sure.

    pip install "vlm-adapters[sam]"
    python examples/lab/measure_points.py [--bars 40] [--hard 100] [--whole 30] [--model NAME] [--report FILE]

Boxes are those of the truth, and masks are by MobileSAM, which is fetched once (41 MB). Two sets: held-out scenes in
which a bar crosses every shape, so that it falls in two or loses its middle, and shapes of which others hide more than
a quarter in held-out hard scenes. The maps are the truth on 24 x 24 and on 12 x 12 cells, and those of a model's heads.
A third set, held-out scenes as they are, shows what the same choice makes of the masks of heads and of a decoder
without training.
"""

from __future__ import annotations

import argparse
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from artefacts import mobile_sam
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from report import table, write_report
from torch.nn import functional

from vlm_adapters import GroundedVLM, load_adapter
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.formats import hard_scenes, scenes
from vlm_adapters.data.sample import Sample
from vlm_adapters.decoder import UntrainedRefiner
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.geometry import boxes_around
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.evaluation.metrics import mask_iou
from vlm_adapters.geometry import Box
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.points import CoarseMask, coarse_masks, masks_in_boxes
from vlm_adapters.heads.profile import HeadProfile, find_profile
from vlm_adapters.prompt import Phrase

CELLS = (24, 12)
SUREST = 0.99
"""Probability of a cell that lies wholly inside a thing."""
MOST_VISIBLE = 0.75
"""Share of a shape that can be seen, if others hide much of it."""
LEAST = 60
"""Pixels of a thing of which enough is left to look for."""
ALONE, HEADS = "the box alone", "points by the maps of heads"


@dataclass(frozen=True)
class Hidden:
    """An image, and the phrases whose things are partly hidden in it.

    Attributes:
        sample: The image, its sentence and the masks of what can be seen.
        phrases: Indices of these phrases.
    """

    sample: Sample = field(repr=False)
    phrases: tuple[int, ...]


def crossed(count: int) -> Iterator[Hidden]:
    """Held-out scenes in which a bar in one of the colours crosses the middle of every shape."""
    for number, sample in enumerate(scenes.Scenes(count, seed=scenes.HELD_OUT_SEED)):
        rng = np.random.default_rng((scenes.HELD_OUT_SEED, number, 1))
        image, masks = sample.image.copy(), sample.masks.copy()
        for mask in sample.masks:
            corners = _bar(rng, mask)
            colour = list(scenes.COLOURS.values())[int(rng.integers(len(scenes.COLOURS)))]
            ImageDraw.Draw(image).polygon(corners, fill=colour)
            cover = Image.new("1", image.size)
            ImageDraw.Draw(cover).polygon(corners, fill=1)
            masks[:, np.asarray(cover)] = False
        parts = {name: getattr(sample, name) for name in ("id", "image_id", "text", "phrases")}
        left = tuple(index for index, mask in enumerate(masks) if mask.sum() >= LEAST)
        yield Hidden(Sample(**parts, image=image, masks=masks), left)


def _bar(rng: np.random.Generator, mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Corners of a bar over the centroid of a mask, 0.3 to 0.5 times as wide as the mask's mean diameter."""
    (y, x), radius = np.argwhere(mask).mean(axis=0), math.sqrt(mask.sum() / math.pi)
    turn, wide = rng.uniform(0, math.pi), rng.uniform(0.3, 0.5) * radius
    along, across = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))
    return [
        (x + p * 1.9 * radius * along[0] + q * wide * across[0], y + p * 1.9 * radius * along[1] + q * wide * across[1])
        for p, q in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]


def hidden_by_others(count: int) -> Iterator[Hidden]:
    """Held-out hard scenes, and the shapes of which others hide more than a quarter."""
    scenes_of_seed = hard_scenes.HardScenes(count, seed=hard_scenes.HELD_OUT_SEED)
    for number in range(count):
        scene, text, phrases = scenes_of_seed.scene(number), "", []
        for thing in scene.things:
            phrases.append(Phrase(thing.phrase, len(text), len(text) + len(thing.phrase)))
            text += f"{thing.phrase} , "
        name = f"hidden-{number}"
        sample = Sample(id=name, image_id=name, text=text, phrases=tuple(phrases), image=scene.image, masks=scene.masks)
        chosen = [index for index, thing in enumerate(scene.things) if thing.visible < MOST_VISIBLE]
        yield Hidden(sample, tuple(index for index in chosen if scene.masks[index].sum() >= LEAST))


def pooled(mask: NDArray[np.bool_], cells: int) -> CoarseMask:
    """A mask on a grid of cells: the best map that there could be."""
    shares = functional.adaptive_avg_pool2d(torch.from_numpy(mask).float()[None, None], (cells, cells))[0, 0]
    return CoarseMask(shares.clamp(1 - SUREST, SUREST).logit(), (0.0, 0.0, float(mask.shape[1]), float(mask.shape[0])))


def measure(
    sam: SegmentAnything, found: Iterator[Hidden], adapter: BackboneAdapter, profile: HeadProfile
) -> dict[str, list[float]]:
    """IoU of every way for every phrase."""
    ious: dict[str, list[float]] = defaultdict(list)
    for hidden in found:
        if not hidden.phrases:
            continue
        image = sam.encode(hidden.sample.image)
        by_heads = coarse_masks(adapter, hidden.sample.prompt, profile)
        for index in hidden.phrases:
            truth = hidden.sample.masks[index]
            left, top, right, bottom = boxes_around(torch.from_numpy(truth)[None])[0].tolist()
            box: Box = (left, top, right, bottom)
            maps = {f"points by the truth, {cells} x {cells}": pooled(truth, cells) for cells in CELLS}
            for way, coarse in {ALONE: None, **maps, HEADS: by_heads[index]}.items():
                ious[way].append(mask_iou(masks_in_boxes(sam, image, [box], coarse) > 0.5, truth))
    return ious


def refined(sam: SegmentAnything, model: str, profile: HeadProfile, count: int) -> dict[str, list[float]]:
    """IoU of the masks of heads and of a decoder on held-out scenes, before and after they are refined, untrained."""
    vlm = GroundedVLM.from_pretrained(model)
    vlm.decoder.refiner = UntrainedRefiner(sam)
    grounders = {"heads": HeadGrounder(vlm.adapter, profile), "heads, refined": HeadGrounder(vlm.adapter, profile, sam)}
    ious: dict[str, list[float]] = defaultdict(list)
    for sample in scenes.Scenes(count, seed=scenes.HELD_OUT_SEED):
        found = {name: grounder.masks([sample.prompt])[0]["mask"] for name, grounder in grounders.items()}
        (of_decoder,) = vlm.masks([sample.prompt])
        found |= {"decoder": of_decoder["coarse"], "decoder, refined": of_decoder["refined"]}
        for name, masks in found.items():
            ious[name] += [mask_iou(mask, truth) for mask, truth in zip(masks, sample.masks, strict=True)]
    return ious


def main() -> None:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=40, help="scenes with bars")
    parser.add_argument("--hard", type=int, default=100, help="hard scenes")
    parser.add_argument("--whole", type=int, default=30, help="scenes as they are")
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint, or a directory")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    sam, adapter = load_sam(mobile_sam()), load_adapter(arguments.model)
    file = find_profile(arguments.model)
    if file is None:
        raise SystemExit(f"{arguments.model} has no head profile. Make one with `adapters calibrate`.")
    profile = HeadProfile.read(file)
    numbers: dict[str, dict[str, float]] = {}
    for name, measured in {
        "crossed by a bar": lambda: measure(sam, crossed(arguments.bars), adapter, profile),
        "hidden by others": lambda: measure(sam, hidden_by_others(arguments.hard), adapter, profile),
        "as they are": lambda: refined(sam, arguments.model, profile, arguments.whole),
    }.items():
        ious = measured()
        count = len(next(iter(ious.values()), []))
        numbers[name] = {"things": count} | {way: round(float(np.mean(ious[way])), 4) for way in ious}
        print(table(["mean IoU", name], numbers[name].items()), flush=True)
    if arguments.report:
        write_report(arguments.report, {"model": arguments.model, **numbers})


if __name__ == "__main__":
    main()
